import type { Settings } from "../config/schema.ts";
import type { Machine } from "../machine/types.ts";
import type { Jail } from "../qemu/jail.ts";
import { UNCONFINED } from "../store/mark-types.ts";
import type { Context } from "./context.ts";
import type { JailRequest, PlannedJail } from "./plan-jail.ts";

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
    return { jail: undefined, record: { ...UNCONFINED, uid: process.getuid!(), reasons: ["JAIL=off"] } };
  return (await import("./plan-jail.ts")).planConfined(context, request);
}
