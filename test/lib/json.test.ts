import { expect, test } from "bun:test";
import { toJson } from "../../src/lib/json.ts";

test("control characters are escaped, and read back unchanged", () => {
  const value = { name: "a\u009b31m\u202eb\u007f\u2066\u001b[2J\n", list: ["й"] };
  const text = toJson(value);
  expect(text).not.toMatch(/[^\P{Cc}\n]|[\u202e\u2066]/u);
  expect(text).toContain("й");
  expect(JSON.parse(text)).toEqual(value);
});

test("keys select the fields", () => {
  expect(toJson({ a: 1, b: 2 }, ["b"])).toBe('{\n  "b": 2\n}\n');
  expect(toJson({ a: undefined }, (_key, value) => value ?? null)).toBe('{\n  "a": null\n}\n');
});
