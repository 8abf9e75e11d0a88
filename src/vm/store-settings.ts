import { utimesSync } from "node:fs";
import { join } from "node:path";
import { refuseNewer } from "../config/guest-format.ts";
import type { SettingName } from "../config/schema.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { fileError, replaceFile } from "../store/files.ts";
import { isUnwritable, readValues, withChanges } from "../store/guest-env.ts";
import { HOST } from "../store/layout.ts";
import { noVmIn } from "../store/no-vm.ts";
import { findGuestEnv } from "../store/workdir.ts";
import type { Vm } from "./find.ts";
import { warnOfUnreadSettings } from "./settings-file.ts";

/** Settings to store; undefined removes one. */
export type SettingChanges = Partial<Record<SettingName, SettingValue | undefined>>;

/** Settings that a VM keeps when its working files are lost, or replaced by a snapshot, as it keeps its UUID. */
const LASTING = ["GUESTNAME", "TEMPLATE"] as const satisfies readonly SettingName[];

/** Those of the VM, from its guest.env; undefined if it cannot be read. An absent TEMPLATE is none. */
export function readLasting({ hostdir, work }: Pick<Vm, "hostdir" | "work">): SettingChanges | undefined {
  const path = findGuestEnv(hostdir, work);
  const values = path === undefined ? undefined : readValues(readSmall(path) ?? "");
  if (!values) return undefined;
  const { GUESTNAME, TEMPLATE } = values;
  return { ...(GUESTNAME !== undefined && { GUESTNAME }), TEMPLATE };
}

/** Puts them into the guest.env of staged working files. One that cannot be read literally is left as it is. */
export function carryLasting(dir: string, lasting: SettingChanges | undefined): void {
  const path = join(dir, HOST.guestEnv);
  const text = readSmall(path);
  const changed = lasting && text !== undefined ? withChanges(text, lasting) : undefined;
  if (changed !== undefined && changed !== text) replaceFile(path, changed);
}

/** HOSTDIR's guest.env, if it has one, is used when the working files are lost. */
function keepInHostdir({ hostdir, work }: Pick<Vm, "hostdir" | "work">, changes: SettingChanges): void {
  if (work.state !== "present" || work.inplace) return;
  const lasting = LASTING.filter((name) => name in changes).map((name) => [name, changes[name]] as const);
  const path = join(hostdir, HOST.guestEnv);
  const before = lasting.length > 0 ? lstatOf(path) : undefined;
  if (!before) return;
  carryLasting(hostdir, Object.fromEntries(lasting));
  // The time of the user's last change (settings-file.ts).
  utimesSync(path, before.atime, before.mtime);
}

/** @throws 64 for characters that bash and this program would read differently from a settings file */
export function refuseUnwritable(values: Readonly<Record<string, SettingValue | undefined>>): void {
  for (const [name, value] of Object.entries(values))
    if (value !== undefined && isUnwritable(value))
      throw new VmError(
        "usage",
        `cannot save ${name}: it contains a control character: ${JSON.stringify(value)}`,
      );
}

/**
 * Changes settings in the VM's guest.env, which must be a valid one of plain lines. Called under the VM's lock.
 * @param command for the error messages
 * @throws 78 for a guest.env that cannot be changed, 74 if it cannot be written
 */
export function storeSettings(
  { hostdir, work }: Pick<Vm, "hostdir" | "work">,
  command: string,
  changes: SettingChanges,
): void {
  refuseUnwritable(changes);
  const path = findGuestEnv(hostdir, work);
  const text = path === undefined ? undefined : readSmall(path);
  if (path === undefined || text === undefined) throw noVmIn(hostdir);
  refuseNewer(text, path);
  const changed = withChanges(text, changes);
  if (changed === undefined)
    throw new VmError("config", `cannot ${command}: ${path} has lines other than plain NAME=value`, {
      hint: `change ${Object.keys(changes).join(", ")} there by hand`,
    });
  if (changed === text) return;
  warnOfUnreadSettings({ hostdir, work });
  try {
    // First, as a repetition changes only what the file in force does not have yet.
    keepInHostdir({ hostdir, work }, changes);
    replaceFile(path, changed);
  } catch (error) {
    throw fileError(`cannot ${command}`, error);
  }
  log.info(`stored in ${path}`);
}
