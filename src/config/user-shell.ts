/**
 * Shell state set by the user's own settings files (`vm.conf`) besides settings: variables, arrays, exports, functions and
 * `shopt` options. Hooks and check-media receive it as bash text that declares it.
 */
import { shellLine, shellQuote } from "../lib/shell.ts";
import type { SettingValue } from "./shell-expand.ts";

/** Variables of bash itself, some read-only. Our own names start with `_vm_`. */
const OF_EACH_SHELL =
  /^(_|_vm_.*|BASH.*|COMP_.*|DIRSTACK|EPOCH.*|EUID|FUNCNAME|GROUPS|HISTCMD|IFS|LINENO|OLDPWD|OPT(ARG|ERR|IND)|PIPESTATUS|PPID|PWD|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|UID)$/;

/**
 * Prints, NUL-separated: `shopt` options, functions, names of exported functions, then names and declarations of
 * variables. Starts no process per variable.
 */
export const SHOW_SHELL_STATE = String.raw`
set +e
shopt -p; printf '\0'; declare -f; printf '\0'; declare -Fx; printf '\0'
_vm_ifs=$IFS; IFS=$'\n'
for _vm_name in $(compgen -v); do
  printf '%s\0' "$_vm_name"; declare -p "$_vm_name" 2>/dev/null; printf '\0'
done
IFS=$_vm_ifs
set -e
`;

/** Declares in bash what `userShellEnvironment` passes. */
export const RESTORE_USER_SHELL = String.raw`
_vm_index=0 _vm_text=
while _vm_name=_vm_shell_$_vm_index; [ -n "${"$"}{!_vm_name+set}" ]; do
  _vm_text+=${"$"}{!_vm_name}; unset "$_vm_name"; _vm_index=$((_vm_index + 1))
done
set +eu; eval "$_vm_text"; set -eu
unset _vm_index _vm_name _vm_text
`;

/** Environment that passes the text to bash: an argument list would be visible to all users. */
export const userShellEnvironment = (userShell: string): Record<string, string> =>
  // An environment string has at most 128 KiB (execve(2)), a character at most four bytes.
  Object.fromEntries(
    (userShell.match(/[^]{1,30000}/gu) ?? []).map((piece, index) => [`_vm_shell_${index}`, piece]),
  );

/** Shell state as printed by SHOW_SHELL_STATE. */
export interface ShellState {
  options: string[];
  functions: string;
  /** Declarations of variables. */
  variables: Map<string, string>;
}

/** Reads what SHOW_SHELL_STATE printed. */
export function readShellState(output: string): ShellState {
  const [options = "", functions = "", exported = "", ...words] = output.split("\0");
  const variables = new Map<string, string>();
  for (let index = 0; index + 1 < words.length; index += 2) variables.set(words[index]!, words[index + 1]!);
  return { options: options.trim().split("\n"), functions: functions + exported, variables };
}

/**
 * Pure: bash text that turns a shell's first state into its second.
 * @param without variables that are passed otherwise
 */
export function buildUserShell(before: ShellState, after: ShellState, without: readonly string[]): string {
  const isOwn = (name: string): boolean => !OF_EACH_SHELL.test(name) && !without.includes(name);
  const options = after.options.filter((line) => !before.options.includes(line));
  const declared = [...after.variables].filter(
    ([name, text]) => isOwn(name) && before.variables.get(name) !== text,
  );
  const gone = [...before.variables.keys()].filter((name) => isOwn(name) && !after.variables.has(name));
  return [
    // `extglob` affects the parsing of functions.
    ...options.map((line) => `${line}\n`),
    after.functions,
    ...gone.map((name) => `unset ${name}\n`),
    ...declared.map(([, text]) => text),
  ].join("");
}

/** The same for an assignment that was read literally; empty for read-only variables. */
export function userAssignment(name: string, value: SettingValue): string {
  if (OF_EACH_SHELL.test(name)) return "";
  const text = typeof value === "string" ? shellQuote(value) : `( ${shellLine(value)} )`;
  return `${name}=${text}\n`;
}
