import { describe, expect, test } from "bun:test";
import type { SettingValue } from "../../src/config/shell-expand.ts";
import { readAssignments } from "../../src/config/literal.ts";
import { askBash, lookup, NAMES, PRESET, type Variables } from "./bash-oracle.ts";
import { DIFFICULT, SIMPLE } from "./settings-files.ts";
import { seededRandom, Snippets } from "./shell-snippets.ts";

/** All variables after reading, in the format of bash-oracle. */
function read(text: string): { kind: string; variables: Variables | undefined } {
  const result = readAssignments(text, lookup);
  if (result.kind !== "values") return { kind: result.kind, variables: undefined };
  const assigned = result.assignments
    .filter(({ name }) => NAMES.includes(name))
    .map(({ name, value }) => [name, value] as const);
  return { kind: result.kind, variables: { ...PRESET, ...Object.fromEntries(assigned) } };
}

const withoutHome = (name: string): SettingValue | undefined => (name === "HOME" ? undefined : lookup(name));

/** Each asks bash once, which may take seconds on a busy machine. RANDOM_CASES=N for more. */
const CASES = Number(process.env.RANDOM_CASES ?? 200);

describe("readAssignments against bash", () => {
  const files = [...SIMPLE, ...DIFFICULT];
  const truth = askBash(files);
  const cases = files.map((text, index) => [text, truth[index]] as const);

  test.each(cases)("%j", (text, expected) => {
    const { kind, variables } = read(text);
    if (kind === "values") expect(variables).toEqual(expected);
    // What is an error here is an error in bash, too.
    else if (kind === "error") expect(expected).toBeUndefined();
  });

  test.each(SIMPLE)("needs no bash: %j", (text) => {
    expect(readAssignments(text, lookup)).toMatchObject({ kind: "values" });
  });

  test(`random files against bash (${CASES})`, () => {
    const snippets = new Snippets(seededRandom(8));
    const texts = Array.from({ length: CASES }, () => snippets.settings());
    const answers = askBash(texts);
    let understood = 0;
    for (const [index, text] of texts.entries()) {
      const { kind, variables } = read(text);
      if (kind === "values") expect({ text, variables }).toEqual({ text, variables: answers[index] });
      if (kind === "error") expect({ text, bash: answers[index] }).toEqual({ text, bash: undefined });
      if (kind === "values") understood++;
    }
    expect(understood).toBeGreaterThan(CASES / 5);
  }, 600_000);
});

describe("readAssignments", () => {
  test("yields each assignment with its line and the value after it", () => {
    const text = "# settings\nA=1 B='x\ny'\n\nLIST=new\nA+=2; C=(\n  a\n  b\n)\nB=$A\n";
    expect(readAssignments(text, lookup)).toEqual({
      kind: "values",
      assignments: [
        { name: "A", value: "1", line: 2 },
        { name: "B", value: "x\ny", line: 2 },
        { name: "LIST", value: ["new", "two words", ""], line: 5 },
        { name: "A", value: "12", line: 6 },
        { name: "C", value: ["a", "b"], line: 6 },
        { name: "B", value: "12", line: 10 },
      ],
    });
  });

  test.each([
    ["A=1\n\nB=$HOEM", 3, "HOEM is not set", "write ${HOEM-} if it may be empty"],
    ['A=(\n  x\n  "$HOEM"\n)', 3, "HOEM is not set", "write ${HOEM-} if it may be empty"],
    [
      "A=1\r\nB=2\r\n",
      1,
      "a carriage return: the file has DOS line ends",
      "convert it: sed -i 's/\\r$//' FILE",
    ],
    [
      "\uFEFFA=1",
      1,
      "a byte order mark before the first line",
      "remove it: sed -i '1s/^\\xEF\\xBB\\xBF//' FILE",
    ],
    ["A=1\nB=\0", 2, "a NUL byte: this is not a text file", undefined],
    ["A=1\nB='x\n\n", 2, "' without its end", undefined],
    ['A=1\nB="x\n\n', 2, '" without its end', undefined],
    ["A=1\nB=(x\n\n", 2, "( without its end", undefined],
    ["A=1\nB=${X:-\n\n", 2, "${ without its end", undefined],
  ])("%j is an error on line %d", (text, line, message, hint) => {
    expect(readAssignments(text, lookup)).toEqual({ kind: "error", line, message, ...(hint && { hint }) });
  });

  test.each([
    ["A=1\nif true; then\n", 2, "something other than NAME=value"],
    ["A=1\nB=$(id)\n", 2, "an expansion $(…"],
    ["A='\n'\nB=`id`\n", 3, "a command in `…`"],
    ["A=(\n  $W\n  $XDG\n)\n", 3, "an unquoted value with a blank in it, which bash splits"],
    ["A=1 \\\n  RANDOM=2\n", 2, "RANDOM belongs to the shell"],
    ['A="1"\nPWD="/x"\n', 2, "PWD belongs to the shell"],
    // A later command may set it, so the reader cannot report an error.
    ["A=$HOEM\n. ./more\n", 2, "something other than NAME=value"],
    ["A=~", 1, "a ~ without a proper HOME"],
    // bash 5.2 expands it to //x, POSIX.1-2024 to /x.
    ["HOME=/ A=~/x", 1, "a ~ without a proper HOME"],
    ["HOME= A=~", 1, "a ~ without a proper HOME"],
    ["HOME='/a b' A=(${B:-~})", 1, "an unquoted value with a blank in it, which bash splits"],
    ["\nA=(\u007f)", 2, "a control character"],
    ["A=$TERM", 1, "TERM, which bash sets where it is unset"],
  ])("%j needs bash from line %d on", (text, line, reason) => {
    expect(readAssignments(text, withoutHome)).toEqual({ kind: "needs-bash", line, reason });
  });

  test("accepts names of Object's members", () => {
    expect(readAssignments("A=$constructor", lookup)).toMatchObject({ kind: "error" });
    expect(readAssignments("__proto__=1 A=$__proto__", lookup)).toMatchObject({ kind: "values" });
  });

  const MEBIBYTE = 2 ** 20;
  test.each([
    ["deep nesting", `A=${"${a:-".repeat(MEBIBYTE / 6)}`],
    ["deep nesting in quotes", `A="${"${a:-".repeat(MEBIBYTE / 6)}`],
    ["51 levels", `A=${"${a:-".repeat(51)}${"}".repeat(51)}`],
    ["a value doubled again and again", `A=xx\n${"A=$A$A\n".repeat(100)}`],
    ["a long array copied again and again", `A=(${"x ".repeat(3e4)})\n${"A=y\n".repeat(3e4)}`],
    ["an array grown one by one", "A+=(x)\n".repeat(3e4)],
  ])("refuses %s", (_title, text) => {
    expect(readAssignments(text, lookup)).toMatchObject({ kind: "needs-bash" });
  });

  test.each([
    ["50 levels", `A=${"${a:-".repeat(50)}${"}".repeat(50)}`],
    ["a long value", `A="${"x".repeat(MEBIBYTE)}"`],
    ["many pieces", `A="${"$W-".repeat(MEBIBYTE / 3)}"`],
    ["many assignments", "A=1\n".repeat(MEBIBYTE / 4)],
    ["many elements", `A=(${"x ".repeat(MEBIBYTE / 2)})`],
    ["many continuations", `A=${"\\\n".repeat(MEBIBYTE / 2)}`],
  ])("reads %s", (_title, text) => {
    expect(readAssignments(text, lookup)).toMatchObject({ kind: "values" });
  });
});
