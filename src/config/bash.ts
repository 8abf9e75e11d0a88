import { randomUUID } from "node:crypto";
import { exec, requireProgram } from "../process/exec.ts";
import type { SettingValue } from "./literal.ts";
import { SECRETS } from "./schema.ts";

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

/** Prints the variables named in _vm_names, NUL-separated, behind a mark that no file can know. */
const PRINT_VARIABLES = `
set +eu
printf '\\0%s\\0' "$_vm_mark"
for _vm_name in $_vm_names; do
  case $(declare -p "$_vm_name") in
    "declare -a"*|"declare -"?"a"*) _vm_all="$_vm_name[@]"; _vm_all=("\${!_vm_all}")
      printf '%s\\0' "$_vm_name" "\${#_vm_all[@]}" "\${_vm_all[@]}" ;;
    "declare "*) printf '%s\\0' "$_vm_name" s "\${!_vm_name}" ;;
  esac
done
`;

/**
 * Sources a file with every right of the caller. A condition that is false in its last line is no failure
 * (`-e`): a `:` follows it.
 */
const SOURCE = `. <(cat -- "$1"; printf '\\n:\\n')`;

/**
 * The environment for `buildBashArgv`'s bash. An argument list is seen by everybody; secrets go by the
 * environment, which is the caller's own.
 */
export const bashEnvironment = (variables: BashVariables): Record<string, string | undefined> => ({
  BASH_ENV: undefined,
  ...Object.fromEntries(
    Object.entries(variables).flatMap(([name, value]) =>
      SECRETS.has(name) && typeof value === "string" ? [[name, value]] : [],
    ),
  ),
});

/** `bash` arguments that set variables from argument values; nothing of them becomes shell text. */
export function buildBashArgv(variables: BashVariables, script: string, args: readonly string[]): string[] {
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
    SET_VARIABLES + script,
    "vm",
    ...flat,
    "--",
    ...args,
  ];
}

/** Reads what PRINT_VARIABLES wrote. */
export function parseBashVariables(output: string, mark: string): BashVariables | undefined {
  const at = output.lastIndexOf(`\0${mark}\0`);
  if (at < 0) return undefined;
  const words = output.slice(at + mark.length + 2).split("\0");
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

/** What evaluating a file gave, or bash's own complaint. */
export type BashResult = { variables: BashVariables } | { complaint: string };

/**
 * Lets bash evaluate a settings file with every right of the caller.
 * @param variables set beforehand; those in `wanted` are read back
 */
export async function evaluateWithBash(
  file: string,
  variables: BashVariables,
  wanted: readonly string[],
): Promise<BashResult> {
  requireProgram("bash");
  const mark = randomUUID();
  const argv = buildBashArgv(
    { ...variables, _vm_mark: mark, _vm_names: wanted.join(" ") },
    // Word splitting of the names is wanted; IFS may have been changed by the file.
    `${SOURCE}\nIFS=' '\n${PRINT_VARIABLES}`,
    [file],
  );
  const result = await exec(argv, { anyStatus: true, env: bashEnvironment(variables) });
  const parsed = parseBashVariables(result.stdout, mark);
  if (result.status !== 0 || !parsed) {
    const complaint = result.stderr.trim().split("\n").at(-1) || `status ${result.status}`;
    return { complaint: complaint.replace(/^(vm|\/dev\/fd\/\d+): /, "") };
  }
  if (result.stderr) process.stderr.write(result.stderr);
  return { variables: parsed };
}
