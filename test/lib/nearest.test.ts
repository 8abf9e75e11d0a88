import { expect, test } from "bun:test";
import { nearest } from "../../src/lib/nearest.ts";
import { OLD_NAMES } from "../../src/cli/registry.ts";

test.each([
  ["bakcup", "backup"],
  ["backups", "backup"],
  ["bckup", "backup"],
  ["bak", "backup"],
  ["BACKUP", "backup"],
  ["BACK", "backup"],
  ["rn", "run"],
  ["rum", "run"],
  ["rnu", "run"],
  ["Run", "run"],
  ["jobs", "job"],
  ["job", "job"],
  ["rest", "restore"],
  ["resotre", "restore"],
  ["delete", undefined],
  ["destory", "destroy"],
  ["des", "destroy"],
  ["creat", "create"],
  ["", undefined],
  ["x", undefined],
  ["image.iso", undefined],
  ["constructor", undefined],
  ["запуск", undefined],
  ["b".repeat(31), undefined],
])("for %j suggests %p", (word, choice) => {
  expect(nearest(word, OLD_NAMES)).toBe(choice);
});

test("accepts an empty list", () => {
  expect(nearest("run", [])).toBeUndefined();
});
