import { refuseNewer } from "../config/guest-format.ts";
import type { SettingName } from "../config/schema.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { readSmall } from "../lib/read-file.ts";
import { fileError, replaceFile } from "../store/files.ts";
import { isUnwritable, withChanges } from "../store/guest-env.ts";
import { noVmIn } from "../store/no-vm.ts";
import { findGuestEnv } from "../store/workdir.ts";
import type { Vm } from "./find.ts";
import { warnOfUnreadSettings } from "./settings-file.ts";

/** Settings to store; undefined removes one. */
export type SettingChanges = Partial<Record<SettingName, SettingValue | undefined>>;

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
    replaceFile(path, changed);
  } catch (error) {
    throw fileError(`cannot ${command}`, error);
  }
  log.info(`stored in ${path}`);
}
