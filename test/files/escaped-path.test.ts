import { expect, test } from "bun:test";
import { encodePath, hasBadBytes, readShownPath } from "../../src/files/escaped-path.ts";
import { escapeName } from "../../src/files/listing.ts";
import { parseFilesRequest } from "../../src/files/request.ts";

test.each([
  ["plain", Buffer.from("/srv/file")],
  ["line ends, tabs and backslashes", Buffer.from("/srv/a\nb\tc\\n\\")],
  ["control characters, and more than ASCII", Buffer.from("/srv/\x1b[31m é \u202e 日本")],
  ["not UTF-8", Buffer.from([0x2f, 0xff, 0x80, 0x5c, 0x6e, 0x0a, 0xc3])],
  ["UTF-8 and not", Buffer.concat([Buffer.from("/é"), Buffer.from([0xfe])])],
])("what ls shows names the same file again: %s", (_, bytes) => {
  const path = readShownPath(escapeName(bytes));
  expect(encodePath(path)).toEqual(bytes);
  expect(hasBadBytes(path)).toBe(!Buffer.from(bytes.toString()).equals(bytes));
});

test("a path without bytes that are not UTF-8 is an ordinary one", () => {
  expect(readShownPath(String.raw`/srv/a\nb\\\303\251`)).toBe("/srv/a\nb\\é");
});

test.each([String.raw`/a\x`, String.raw`/a\400`, "/a\\", String.raw`/a\07`])("%j is refused", (text) => {
  expect(() => readShownPath(text)).toThrow(/is no escape of ls/);
});

test("only what takes a path takes --escaped; a NUL is refused", () => {
  const get = { action: "get", escaped: true };
  expect(parseFilesRequest({ ...get, name: ["S0", String.raw`/a\nb`, "to"] })).toMatchObject({
    paths: ["/a\nb"],
    destination: "to",
  });
  expect(() => parseFilesRequest({ ...get, name: ["S0", String.raw`/a\000`, "to"] })).toThrow(/NUL/);
  expect(() => parseFilesRequest({ action: "show", escaped: true, name: "S0" })).toThrow(/--escaped/);
});
