/** The check of words: scripts/check words. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findWords, parseRules } from "../scripts/lib/check-words.ts";

const LIST = readFileSync(join(import.meta.dir, "../scripts/words.txt"), "utf8");
const rules = parseRules(LIST);
const found = (file: string, text: string): string[] =>
  findWords(file, text, rules).map(({ line, found: words }) => `${line}: ${words}`);

describe("finds", () => {
  test.each([
    ["src/a.ts", "x();\n// The guest stands still.", "2: stands still"],
    ["src/a.ts", "/**\n * It lies over the image.", "2: lies over"],
    ["src/a.ts", 'log.info("no room left");', "1: no room"],
    ["src/a.ts", "const a = 1; // Nobody waits.", "1: Nobody"],
    ["src/a.ts", "// At the beginning of a line", "1: beginning of a"],
    ["jobs/a.job", "echo the key is told", "1: is told"],
    ["README.md", "The behavior of colors", "1: behavior"],
    ["test/a.test.ts", '  test("goes on after an error", () => {', "1: goes on"],
    ["test/a.test.ts", '    ["is not whole", 1],', "1: is not whole"],
  ])("in %s: %s", (file, text, expected) => {
    expect(found(file, text)).toContain(expected);
  });
});

describe("passes", () => {
  test.each([
    ["src/a.ts", "const ours = theirs.filter(nobody);"],
    ["src/a.ts", '"--no-colors"'],
    ["src/a.ts", "// The guest is paused."],
    ["test/a.test.ts", "expect(nobody).toBe(ours);"],
    ["README.md", "The overlay has a backing file; behaviour and colours"],
  ])("in %s: %s", (file, text) => {
    expect(found(file, text)).toEqual([]);
  });
});

test("rejects a line that is no rule", () => {
  expect(() => parseRules("word without an arrow\n")).toThrow("PATTERN -> INSTEAD");
});
