import type { Settings } from "../config/schema.ts";
import type { Machine } from "../machine/types.ts";
import type { WantedPath } from "../qemu/jail-view.ts";
import type { Jail } from "../qemu/jail.ts";
import type { JailRecord } from "../store/mark-types.ts";
import type { Context } from "./context.ts";

/** A jail for one qemu. */
export interface PlannedJail {
  /** Undefined: JAIL=off. */
  jail: Jail | undefined;
  /** What it has, and why not more. */
  record: JailRecord;
}

/** What a qemu is started for. */
export interface JailRequest {
  /** Absent: one that only copies images. */
  machine?: Machine;
  /** Its program; that of the machine by default. */
  program?: string;
  /** qemu's working directory. */
  directory: string;
  /** Further files, behind those of the machine. */
  further?: readonly WantedPath[];
}

/** No jail. */
export const BARE: JailRecord = {
  namespaces: false,
  network: false,
  noNewPrivileges: false,
  uid: null,
  reasons: [],
};

/** Has the jails of one command's qemus planned, by their machines and directories. */
export type Confine = (machine: Machine, directory: string) => Promise<Jail | undefined>;
export const confineBy =
  (context: Pick<Context, "cacheDirectory">, settings: Pick<Settings, "JAIL">): Confine =>
  async (machine, directory) =>
    (await planJail(context, settings, { machine, directory })).jail;

/** Decides on the jail of a qemu, by JAIL, this host and the machine. */
export async function planJail(
  context: Pick<Context, "cacheDirectory">,
  { JAIL }: Pick<Settings, "JAIL">,
  request: JailRequest,
): Promise<PlannedJail> {
  if (JAIL === "off")
    return { jail: undefined, record: { ...BARE, uid: process.getuid!(), reasons: ["JAIL=off"] } };
  return (await import("./plan-jail.ts")).planConfined(context, request);
}
