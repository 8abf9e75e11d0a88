import { expect, test } from "bun:test";
import {
  counted,
  isPlainName,
  plain,
  plainLines,
  printable,
  quoteLine,
  tameText,
} from "../../src/lib/text.ts";

test.each([
  ["\x1b[2Ja", "?[2Ja"],
  ["a\r\n\tb", "a???b"],
  ["a\x9b31mb", "a?31mb"],
  ["a\u202eb\u2066c", "a?b?c"],
  ["żółw 日本", "żółw 日本"],
])("plain(%j)", (text, expected) => {
  expect(plain(text)).toBe(expected);
});

test("plainLines keeps only line breaks", () => {
  expect(plainLines("a\nb\x1b\n")).toBe("a\nb?\n");
});

test("tameText keeps colours, and no other control sequences", () => {
  expect(tameText("\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J\n\t")).toBe(
    "\x1b[31mred\x1b[0m^[]0;title?^[[2J\n\t",
  );
});

test.each(["", ".", "..", "a/b", "/", "a\0", "a\nb", "x".repeat(256), 5, null, undefined])(
  "%j is not a name",
  (name) => {
    expect(isPlainName(name)).toBe(false);
  },
);

test.each(["a", ".work", "disk-0.img", "ä ö", "x".repeat(255)])("%j is a name", (name) => {
  expect(isPlainName(name)).toBe(true);
});

test("a result keeps line breaks and tabs, and no other control characters", () => {
  expect(printable("a\tb\n\u001b[2J\u009b1m\u202ec\r")).toBe("a\tb\n?[2J?1m?c?");
});

test.each([
  ["short\u001b[1m", "short?[1m"],
  ["\0".repeat(5000), `${"?".repeat(300)}…`],
])("shortens a line of a log in a message", (line, quoted) => {
  expect(quoteLine(line)).toBe(quoted);
});

test.each([
  [0, "0 snapshots"],
  [1, "1 snapshot"],
  [2, "2 snapshots"],
])("%p: %s", (count, text) => {
  expect(counted(count, "snapshot")).toBe(text);
});
