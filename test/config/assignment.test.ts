import { describe, expect, test } from "bun:test";
import { bashAssignment } from "../../src/config/assignment.ts";
import type { SettingValue } from "../../src/config/shell-expand.ts";
import { readAssignments } from "../../src/config/literal.ts";
import { askBash } from "./bash-oracle.ts";

describe("an assignment", () => {
  test.each<[SettingValue, string]>([
    ["", "A="],
    ["2G", "A=2G"],
    ["two words", "A='two words'"],
    ["it's", String.raw`A='it'\''s'`],
    ["~/x", "A='~/x'"],
    ["$HOME", "A='$HOME'"],
    ["a\nb", "A='a\nb'"],
    ["\u001B[1m", String.raw`A=$'\x1b[1m'`],
    ["\\'\r", String.raw`A=$'\x5c\x27\x0d'`],
    [[], "A=()"],
    [["a", "", "b c"], "A=( a '' 'b c' )"],
  ])("of %j is %s", (value, text) => {
    expect(bashAssignment("A", value)).toBe(text);
  });
});

/** A generator with a fixed seed, for reproducible failures (mulberry32). */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const PLAIN = [..."aZ09 _@%+=:,./-~#$'\"\\`!*?[](){}<>|&;^\n\t", "é", "Ж", "😀", "\u00A0"];
const CONTROL = ["\r", "\u0001", "\u001B", "\u007F", "\u0085", "\v"];

function randomValues(alphabet: readonly string[], count: number): SettingValue[] {
  const below = randomNumbers(count);
  const word = (): string =>
    Array.from({ length: below(8) }, () => alphabet[below(alphabet.length)]!).join("");
  return Array.from({ length: count }, () => (below(2) ? word() : Array.from({ length: below(4) }, word)));
}

const withComment = (value: SettingValue): string => `${bashAssignment("A", value)}  # a comment's \\\n`;

test("bash reads random values back", () => {
  const values = [...randomValues(PLAIN, 100), ...randomValues([...PLAIN, ...CONTROL, ...CONTROL], 100)];
  const read = askBash(values.map(withComment));
  for (const [index, value] of values.entries()) expect(read[index]?.A ?? []).toEqual(value);
}, 60_000);

test("the literal reader reads them back, unless there are control characters", () => {
  for (const value of randomValues(PLAIN, 2000)) {
    const text = `${withComment(value)}B=2`;
    expect(readAssignments(text, () => undefined)).toEqual({
      kind: "values",
      assignments: [
        { name: "A", value, line: 1 },
        { name: "B", value: "2", line: text.split("\n").length },
      ],
    });
  }
  for (const value of ["\r", ["x", "\u001B"]])
    expect(readAssignments(withComment(value), () => undefined).kind).toBe("needs-bash");
});
