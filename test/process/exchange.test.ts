import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { exchange } from "../../src/process/libc.ts";
import { Temp } from "../fixtures/temp.ts";

test("two names are exchanged", () => {
  using temp = new Temp();
  temp.write("one", "1");
  temp.write("other", "2");
  expect(exchange(temp.path("one"), temp.path("other"))).toBe(true);
  expect(readFileSync(temp.path("one"), "utf8")).toBe("2");
  expect(readFileSync(temp.path("other"), "utf8")).toBe("1");
});

test("an error is distinguished from a filesystem without support", () => {
  using temp = new Temp();
  temp.write("one", "1");
  expect(() => exchange(temp.path("one"), temp.path("none"))).toThrow(/ENOENT/);
});
