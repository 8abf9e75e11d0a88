import { expect, test } from "bun:test";
import { isPrivateGroup } from "../../src/lib/trust.ts";

const fields = (lines: string[]): string[][] => lines.map((line) => line.split(":"));
const PASSWD = fields([
  "root:x:0:0::/root:/bin/sh",
  "alice:x:1000:1000::/:/bin/sh",
  "bob:x:1001:100::/:/bin/sh",
]);

test.each([
  ["a group of the user's own", "alice:x:1000:", true],
  ["the group also lists the user", "alice:x:1000:alice", true],
  ["another member", "alice:x:1000:bob", false],
  ["not in the database", "staff:x:50:", false],
])("%s", (_title, line, expected) => {
  expect(isPrivateGroup(1000, 1000, PASSWD, fields([line]))).toBe(expected);
});

test("the primary group of another user is not private either", () => {
  const passwd = [...PASSWD, ...fields(["carol:x:1002:1000::/:/bin/sh"])];
  expect(isPrivateGroup(1000, 1000, passwd, fields(["alice:x:1000:"]))).toBe(false);
});
