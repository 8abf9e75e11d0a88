import { warnOnce } from "../lib/log.ts";
import { distrust } from "../lib/trust.ts";
import type { SettingValue } from "./shell-expand.ts";
import type { Assignment } from "./literal.ts";
import { isSettingName } from "./schema.ts";
import { userAssignment } from "./user-shell.ts";

/** What the user's own files set besides settings. */
export interface OwnVariables {
  /** As bash text (user-shell.ts). */
  text: string;
  /** Those of files that were read literally, for later files to refer to. */
  variables: Record<string, SettingValue>;
}

/** Notes the variables of a user's file that are no settings. */
export function addOwn(own: OwnVariables, file: string, assignments: readonly Assignment[]): void {
  const further = assignments.filter(({ name }) => !isSettingName(name));
  if (further.length === 0) return;
  const reason = distrust(file);
  if (reason !== undefined) {
    const names = [...new Set(further.map(({ name }) => name))].join(", ");
    warnOnce(`hooks do not get ${names} of ${file}: ${reason}`);
    return;
  }
  for (const { name, value } of further) {
    own.variables[name] = value;
    own.text += userAssignment(name, value);
  }
}
