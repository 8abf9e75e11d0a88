import { expect, test } from "bun:test";
import { lookupIn } from "../../src/config/lookup.ts";

const lookup = lookupIn({ A: "1", LIST: ["x"], GAP: undefined }, { A: "2", B: "3", GAP: "4" });

test.each([
  ["A", "1"],
  ["B", "3"],
  ["GAP", "4"],
  ["LIST", ["x"]],
  ["C", undefined],
  ["constructor", undefined],
  ["__proto__", undefined],
  ["toString", undefined],
])("%s is %j", (name, value) => {
  expect(lookup(name)).toEqual(value);
});
