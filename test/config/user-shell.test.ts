import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { bashEnvironment, buildBashArgv, evaluateWithBash } from "../../src/config/bash.ts";
import { readSettings } from "../../src/config/load.ts";
import { type Sources } from "../../src/config/load-layer.ts";
import { buildUserShell, userAssignment, userShellEnvironment } from "../../src/config/user-shell.ts";
import { Temp } from "../fixtures/temp.ts";
import { sourcesFor } from "../fixtures/sources.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
  temp.directory("home/.config");
});
afterEach(() => temp[Symbol.dispose]());

/** Output of a hook with this environment. */
function inHook(userShell: string, script: string, env: Record<string, string> = {}): string {
  const variables = { CORES: "2", PROG: "vm" };
  const done = Bun.spawnSync(buildBashArgv(variables, script, []), {
    env: { PATH: "/usr/bin:/bin", ...env, ...bashEnvironment(variables, userShell) },
  });
  expect(done.stderr.toString()).toBe("");
  return done.stdout.toString();
}

/** Variables and functions that a settings file sets besides settings, evaluated after others. */
async function evaluate(text: string, before = ""): Promise<string> {
  const result = await evaluateWithBash(temp.write("x.conf", text), { CORES: "2" }, ["CORES"], before);
  if ("complaint" in result) throw new Error(result.complaint);
  return result.userShell;
}

test("settings come back from bash as texts and lists, also those declared without a value", async () => {
  const text = "A='x y'; declare -a B=( 1 '' ) C D=( [2]=z ); declare E; unset F; CORES+=4\n";
  const path = temp.write("x.conf", text);
  const result = await evaluateWithBash(
    path,
    { CORES: "2", F: "x" },
    ["A", "B", "C", "D", "E", "F", "CORES"],
    "",
  );
  expect(result).toMatchObject({
    variables: { A: "x y", B: ["1", ""], C: [], D: ["z"], E: "", CORES: "24" },
  });
  expect(result).not.toHaveProperty("variables.F");
});

describe("bash's results reach a hook:", () => {
  test.each<[title: string, file: string, hook: string, printed: string]>([
    ["a variable", "A='x  y'", 'echo "$A"', "x  y"],
    ["not exported", "A=x", 'printenv A || echo "none"', "none"],
    ["exported", "export A='x y'", "printenv A", "x y"],
    [
      "an array",
      "A=( 1 'two  three' $'new\\nline' )",
      'echo "${#A[@]} ${A[1]} ${A[2]}"',
      "3 two  three new\nline",
    ],
    ["a map", "declare -A A=( [k]='v w' )", 'echo "${A[k]}"', "v w"],
    ["a constant", "readonly A=5", '(A=6) 2>/dev/null || echo "$A"', "5"],
    ["an integer", "declare -i A=2", "A+=3; echo $A", "5"],
    ["a function", 'f() { echo "f $1 $CORES"; }', "f x", "f x 2"],
    ["an exported function", "f() { echo f; }; export -f f", "bash -c f", "f"],
    ["one that needs extglob", "shopt -s extglob\nf() { [[ $1 == @(a|b) ]]; }", "f a && echo yes", "yes"],
    ["text beyond ASCII", "A='№ ёлка 😀'", 'echo "$A"', "№ ёлка 😀"],
    [
      "quotes and substitutions as text",
      "A='\"$(id)\\`x\\`'",
      'echo "$A"',
      '"$(id)`x`'.replaceAll("`", "\\`"),
    ],
  ])("%s", async (_title, file, hook, printed) => {
    expect(inHook(await evaluate(`${file}\n`), hook)).toBe(`${printed}\n`);
  });

  test("settings and bash's own variables are not included", async () => {
    expect(await evaluate("CORES=3\nIFS=:\nOPTIND=5\nPWD=/\n: $RANDOM\n")).toBe("");
  });

  test("merges several files, the later ones override", async () => {
    const first = await evaluate("A=1 B=1\nf() { echo $A$B; }\n");
    const second = await evaluate("B=2\nC=$A\n", first);
    expect(inHook(second, "f; echo $C")).toBe("12\n1\n");
  });

  test("variables of the environment that the file removes or changes", async () => {
    process.env.VM_TEST_GONE = "1";
    process.env.VM_TEST_CHANGED = "1";
    try {
      const shell = await evaluate("unset VM_TEST_GONE\nVM_TEST_CHANGED=2\n");
      const env = { VM_TEST_GONE: "1", VM_TEST_CHANGED: "1" };
      expect(inHook(shell, 'echo "${VM_TEST_GONE-none}"; printenv VM_TEST_CHANGED', env)).toBe("none\n2\n");
    } finally {
      delete process.env.VM_TEST_GONE;
      delete process.env.VM_TEST_CHANGED;
    }
  });

  test("values that exceed one environment string", async () => {
    const long = "ж".repeat(200_000);
    expect(Object.keys(userShellEnvironment(long)).length).toBeGreaterThan(1);
    expect(
      inHook(userAssignment("A", long), 'echo "${#A}"; env | grep -c _vm_ || :', { LC_ALL: "C.UTF-8" }),
    ).toBe("200000\n0\n");
  });

  test("options precede functions, functions precede variables", () => {
    const state = {
      options: ["shopt -u extglob"],
      functions: "",
      variables: new Map([["GONE", "declare -- GONE"]]),
    };
    const after = {
      options: ["shopt -s extglob"],
      functions: "f () \n{ \n    :\n}\n",
      variables: new Map([["A", 'declare -- A="1"\n']]),
    };
    expect(buildUserShell(state, after, [])).toBe(
      'shopt -s extglob\nf () \n{ \n    :\n}\nunset GONE\ndeclare -- A="1"\n',
    );
  });
});

const sources = (changes: Partial<Sources> = {}): Sources =>
  sourcesFor({
    home: temp.path("home"),
    hostdir: temp.top,
    mayUseBash: true,
    ...changes,
  });

const conf = (text: string): string => temp.write("home/.config/vm-unit-test.conf", text);

describe("a literal file:", () => {
  test("its variables reach hooks, and guest.env can refer to them", async () => {
    conf("OWN='x  y'\nLIST=( a 'b c' )\nCORES=4\n");
    const guestEnv = temp.write("guest.env", 'GUESTNAME="$OWN"\nFURTHER="not for hooks"\n');
    const { userShell, raw } = await readSettings(sources({ guestEnv }));
    expect(userShell).toBe("OWN='x  y'\nLIST=( a 'b c' )\n");
    expect(raw.GUESTNAME).toBe("x  y");
    expect(userAssignment("UID", "7")).toBe("");
    expect(inHook(userShell, 'echo "$OWN ${LIST[1]}"')).toBe("x  y b c\n");
  });

  test("is ignored if others can write it, and when many VMs are read", async () => {
    const { chmodSync } = await import("node:fs");
    const file = conf("PATH=/evil\n");
    expect((await readSettings(sources({ mayUseBash: false }))).userShell).toBe("");
    chmodSync(file, 0o666);
    expect((await readSettings(sources())).userShell).toBe("");
  });
});

test.each([
  ["kill -9 $$", "bash was killed by SIGKILL"],
  ["exit 4", "bash exited with status 4"],
  ["exec >/dev/null", "its values cannot be read: it redirects stdout, or redefines printf or declare"],
])("reports how a bash without an error message ended: %s", async (text, complaint) => {
  expect(await evaluateWithBash(temp.write("x.conf", text), { CORES: "2" }, ["CORES"], "")).toEqual({
    complaint,
  });
});
