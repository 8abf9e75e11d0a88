import { exec, requireProgram, type Finished } from "../process/exec.ts";
import type { SettingValue } from "./shell-expand.ts";
import { SECRETS } from "./schema.ts";
import {
  buildUserShell,
  readShellState,
  RESTORE_USER_SHELL,
  SHOW_SHELL_STATE,
  userShellEnvironment,
} from "./user-shell.ts";
import { writeError } from "../lib/standard-streams.ts";

export type BashVariables = Record<string, SettingValue>;

/** Takes `NAME s VALUE` and `NAME COUNT VALUES…` up to `--` off the arguments and sets them. */
const SET_VARIABLES = `
while [ "$1" != -- ]; do
  if [ "$2" = s ]; then
    printf -v "$1" %s "$3"; shift 3
  else
    eval "$1=(\\"\\\${@:3:$2}\\")"; shift $(( $2 + 2 ))
  fi
done
shift
`;

/** [compat] The function `fatal MESSAGE` for the user's scripts on the host. */
export const FATAL = `fatal() { printf '%s: %s\\n' "$PROG" "$*" >&2; exit 1; }\n`;

/** Prints the variables named in _vm_names, NUL-separated. Starts a process only for one that is declared without a value. */
const PRINT_VARIABLES = `
set +eu
_vm_arrays=$'\\n'$(compgen -A arrayvar)$'\\n'
for _vm_name in $_vm_names; do
  declare -p "$_vm_name" >/dev/null 2>&1 || continue
  _vm_kind=s
  case $_vm_arrays in
    *$'\\n'"$_vm_name"$'\\n'*) _vm_kind=a ;;
    *) [ -n "\${!_vm_name+set}" ] || case $(declare -p "$_vm_name") in "declare -a"*|"declare -"?"a"*) _vm_kind=a ;; esac ;;
  esac
  if [ $_vm_kind = a ]; then
    _vm_all="$_vm_name[@]"; _vm_all=("\${!_vm_all}")
    printf '%s\\0' "$_vm_name" "\${#_vm_all[@]}" "\${_vm_all[@]}"
  else
    printf '%s\\0' "$_vm_name" s "\${!_vm_name}"
  fi
done
`;

/**
 * Sources a file with all rights of the caller. A `:` is appended, so that a false condition in the last line is not a
 * failure (`-e`).
 */
const SOURCE = `. <(cat -- "$1"; printf '\\n:\\n')`;

/**
 * The environment for `buildBashArgv`'s bash. Argument lists are visible to all users; secrets are passed in the
 * environment, which is private.
 * @param userShell shell state set by `vm.conf`, besides settings (user-shell.ts)
 */
export const bashEnvironment = (
  variables: BashVariables,
  userShell: string,
): Record<string, string | undefined> => ({
  BASH_ENV: undefined,
  ...userShellEnvironment(userShell),
  ...Object.fromEntries(
    Object.entries(variables).flatMap(([name, value]) =>
      SECRETS.has(name) && typeof value === "string" ? [[name, value]] : [],
    ),
  ),
});

/**
 * `bash` arguments that set variables from argument values; they are never parsed as shell text.
 * @param first shell text that runs before anything is set
 */
export function buildBashArgv(
  variables: BashVariables,
  script: string,
  args: readonly string[],
  first = "",
): string[] {
  const flat = Object.entries(variables).flatMap(([name, value]) =>
    SECRETS.has(name)
      ? []
      : typeof value === "string"
        ? [name, "s", value]
        : [name, String(value.length), ...value],
  );
  return [
    "bash",
    "--norc",
    "--noprofile",
    "-efu",
    "-c",
    first + RESTORE_USER_SHELL + SET_VARIABLES + script,
    "vm",
    ...flat,
    "--",
    ...args,
  ];
}

/** Reads what PRINT_VARIABLES wrote. */
export function parseBashVariables(output: string): BashVariables {
  const words = output.split("\0");
  const variables: BashVariables = {};
  for (let index = 0; index + 1 < words.length;) {
    const [name, kind] = [words[index]!, words[index + 1]!];
    const count = kind === "s" ? 1 : Number(kind);
    const values = words.slice(index + 2, index + 2 + count);
    variables[name] = kind === "s" ? values[0]! : values;
    index += 2 + count;
  }
  return variables;
}

/** The result of evaluating a file, or the error of bash. */
export type BashResult = { variables: BashVariables; userShell: string } | { complaint: string };

/** Of a bash that printed no error. */
function describeFailure({ status, signal }: Pick<Finished, "status" | "signal">): string {
  if (signal !== null) return `bash was killed by ${signal}`;
  if (status !== 0) return `bash exited with status ${status}`;
  return "its values cannot be read: it redirects stdout, or redefines printf or declare";
}

/**
 * Evaluates a settings file with bash, with all rights of the caller.
 * @param variables set beforehand; those in `wanted` are read back
 * @param userShell shell state set by earlier files; included in the result
 */
export async function evaluateWithBash(
  file: string,
  variables: BashVariables,
  wanted: readonly string[],
  userShell: string,
): Promise<BashResult> {
  requireProgram("bash");
  // Unpredictable for the file.
  const mark = crypto.randomUUID();
  const printMark = `printf '\\0%s\\0' ${mark}\n`;
  const argv = buildBashArgv(
    { ...variables, _vm_names: wanted.join(" ") },
    // Word splitting of the names is intended; the file may have changed IFS.
    `${SOURCE}\nIFS=' '\n${printMark}${PRINT_VARIABLES}${printMark}${SHOW_SHELL_STATE}`,
    [file],
    SHOW_SHELL_STATE + printMark,
  );
  const result = await exec(argv, {
    anyStatus: true,
    runAs: "user",
    env: bashEnvironment(variables, userShell),
  });
  const [before, , settings, after] = result.stdout.split(`\0${mark}\0`);
  if (result.status !== 0 || before === undefined || settings === undefined || after === undefined) {
    const complaint = result.stderr.trim().split("\n").at(-1) || describeFailure(result);
    return { complaint: complaint.replace(/^(vm|\/dev\/fd\/\d+): /, "") };
  }
  if (result.stderr) writeError(result.stderr);
  return {
    variables: parseBashVariables(settings),
    userShell: buildUserShell(readShellState(before), readShellState(after), Object.keys(variables)),
  };
}
