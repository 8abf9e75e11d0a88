import { warnOnce } from "../lib/log.ts";
import { distrust } from "../lib/trust.ts";
import type { SettingValue } from "./shell-expand.ts";
import type { Assignment } from "./literal.ts";
import { isSettingName } from "./schema.ts";
import { userAssignment } from "./user-shell.ts";

/** Shell state set by the user's own files, besides settings. */
export interface OwnVariables {
  /** As bash text (user-shell.ts). */
  text: string;
  /** Variables of files read literally, for later files. */
  variables: Record<string, SettingValue>;
}

/** Records the variables of a user's file that are not settings. */
export function addOwn(own: OwnVariables, file: string, assignments: readonly Assignment[]): void {
  const further = assignments.filter(({ name }) => !isSettingName(name));
  if (further.length === 0) return;
  const reason = distrust(file);
  if (reason !== undefined) {
    const names = [...new Set(further.map(({ name }) => name))].join(", ");
    warnOnce(`hooks do not receive ${names} of ${file}: ${reason}`);
    return;
  }
  for (const { name, value } of further) {
    own.variables[name] = value;
    own.text += userAssignment(name, value);
  }
}
