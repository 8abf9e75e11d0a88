/** Evaluates settings files with bash: many files in one process, each in a subshell. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Lookup, SettingValue } from "../../src/config/shell-expand.ts";

export type Variables = Record<string, SettingValue | undefined>;

/** Variables set before a file is read, for bash and for the reader. */
export const PRESET: Record<string, SettingValue> = {
  PATH: "/nowhere", // files can start no program
  HOME: "/home/me",
  XDG: "/x y",
  W: "word",
  EMPTY: "",
  ODD: "a*{1,2}\\$W'\"~:é`",
  SUB: "[1]=x",
  CTL: "\u0001a\u007f",
  LIST: ["one", "two words", ""],
  NONE: [],
};

/** The same for the reader. */
export const lookup: Lookup = (name) => (Object.hasOwn(PRESET, name) ? PRESET[name] : undefined);

/** The compared variables. */
export const NAMES = ["A", "B", "C", "D", "_e", "F2", ...Object.keys(PRESET)];

const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
const preset = Object.entries(PRESET)
  .map(
    ([name, value]) =>
      `${name}=${typeof value === "string" ? quote(value) : `(${value.map(quote).join(" ")})`}`,
  )
  .join("\n");

/** Makes bash read file number `$i`. */
const READ = {
  assignments: ". ../$i",
  // Without word splitting and brace expansion, as specified for readArguments. Words go to D.
  arguments: `IFS=$'\\2' && set +B && eval "D=( $(<../$i)"$'\\n)'`,
};

// After success: declaration, count and values of each variable; then always `=` and the status.
const script = (reading: keyof typeof READ, count: number): string => `
dump() {
  set +eu
  printf 'ok\\0'
  local name
  for name in ${NAMES.join(" ")}; do
    local -n var=$name
    declare -p $name
    printf '\\0'
    printf '%s\\0' "\${#var[@]}" "\${var[@]}"
  done
}
exec 3>&1 >/dev/null 2>&1 </dev/null
mkdir cwd && cd cwd
${preset}
for ((i = 0; i < ${count}; i++)); do
  (set -efu; ${READ[reading]}; dump >&3)
  printf '=%s\\0' "$?" >&3
done`;

/** All variables after bash has read each text, or undefined if it fails. */
export function askBash(
  texts: readonly string[],
  reading: keyof typeof READ = "assignments",
): (Variables | undefined)[] {
  const directory = mkdtempSync(join(tmpdir(), "bash-oracle-"));
  try {
    for (const [index, text] of texts.entries()) writeFileSync(join(directory, String(index)), text);
    const { stdout } = Bun.spawnSync(["bash", "--norc", "--noprofile", "-c", script(reading, texts.length)], {
      cwd: directory,
      env: { PATH: "/usr/bin:/bin" },
    });
    const tokens = stdout.toString().split("\0").values();
    return texts.map(() => parseDump(tokens));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function parseDump(tokens: Iterator<string>): Variables | undefined {
  const take = (): string => {
    const { value, done } = tokens.next();
    if (done) throw new Error("bash ended early");
    return value;
  };
  let token = take();
  if (token !== "ok") {
    if (!/^=\d/.test(token)) throw new Error(`bash wrote ${JSON.stringify(token)}`);
    return undefined;
  }
  const variables: Variables = {};
  for (const name of NAMES) {
    const declaration = take();
    const values = Array.from({ length: Number(take()) }, take);
    variables[name] = declaration.startsWith("declare -a") ? values : values[0];
  }
  token = take();
  if (token !== "=0") throw new Error(`bash wrote ${JSON.stringify(token)} after its variables`);
  return variables;
}
