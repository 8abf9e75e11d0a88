import { expect, test } from "bun:test";
import { escapeCommas } from "../../src/qemu/text.ts";
import { shellQuote } from "../../src/lib/shell.ts";

test.each([
  ["", ""],
  ["a", "a"],
  [",", ",,"],
  ["a,b", "a,,b"],
  ["a,,b", "a,,,,b"],
  ["a,b=c,", "a,,b=c,,"],
])("%j as a value of qemu: %j", (value, escaped) => {
  expect(escapeCommas(value)).toBe(escaped);
});

test.each([
  ["", "''"],
  ["-m", "-m"],
  ["a_B9@%+=:,./-", "a_B9@%+=:,./-"],
  ["a b", "'a b'"],
  ["'", "''\\'''"],
  ["a'b", "'a'\\''b'"],
  ["$x", "'$x'"],
  ["~", "'~'"],
  ["a\n", "'a\n'"],
  ["ё", "'ё'"],
])("%j as a word of a shell: %s", (word, quoted) => {
  expect(shellQuote(word)).toBe(quoted);
});
