import { describe, expect, test } from "bun:test";
import { buildBashArgv, parseBashVariables, type BashVariables } from "../../src/config/bash.ts";

/** Runs bash with the variables, and prints them. */
function setInBash(variables: BashVariables): string[] {
  const print = Object.keys(variables).map((name) => `printf '%s\\0' "\${#${name}[@]}" "\${${name}[@]}"`);
  const argv = buildBashArgv(variables, `set +u\n${print.join("\n")}\nprintf '%s\\0' "$#" "$@"`, [
    "first",
    "--",
    "",
  ]);
  const { stdout, stderr } = Bun.spawnSync(argv, { env: { PATH: "/usr/bin:/bin" } });
  expect(stderr.toString()).toBe("");
  return stdout.toString().split("\0").slice(0, -1);
}

const NASTY = [
  "",
  " ",
  "--",
  "-n",
  "s",
  "a b",
  "'",
  '"',
  "$HOME",
  "$(id)",
  "`id`",
  "\\",
  "\n",
  "*",
  "~",
  "é😀",
  "%s",
  "[0]=x",
];

describe("buildBashArgv sets", () => {
  test.each(NASTY)("the text %j", (value) => {
    expect(setInBash({ A: value, B: "after" })).toEqual(["1", value, "1", "after", "3", "first", "--", ""]);
  });

  test.each<[string, string[]]>([
    ["no elements", []],
    ["one", ["x"]],
    ["an empty one", [""]],
    ["difficult ones", NASTY],
  ])("a list with %s", (_title, list) => {
    const count = String(list.length);
    expect(setInBash({ A: list, B: "after" })).toEqual([
      count,
      ...list,
      "1",
      "after",
      "3",
      "first",
      "--",
      "",
    ]);
  });
});

/** The words that bash prints. */
const text = (...words: string[]): string => words.map((word) => `${word}\0`).join("");

describe("parseBashVariables", () => {
  test.each<[string, string, BashVariables]>([
    ["no variables", "", {}],
    ["texts", text("A", "s", "1", "B", "s", ""), { A: "1", B: "" }],
    ["lists", text("A", "2", "x", "", "B", "0", "C", "s", "y"), { A: ["x", ""], B: [], C: "y" }],
    ["a value named s", text("A", "1", "s", "B", "s", "s"), { A: ["s"], B: "s" }],
  ])("%s", (_title, output, variables) => {
    expect(parseBashVariables(output)).toEqual(variables);
  });
});
