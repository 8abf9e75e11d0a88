import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isSince, LIVE_SNAPSHOTS, QEMU_FEATURES } from "../../src/qemu/features.ts";

test.each([
  ["7.1.0", true],
  ["7.2.22", true],
  ["10.0.0", true],
  ["8.0.0", true],
  ["7.0.5", false],
  ["6.9.0", false],
  ["", false],
])("qemu %p makes live snapshots: %p", (version, expected) => {
  expect(isSince(version, LIVE_SNAPSHOTS.since)).toBe(expected);
});

test.each(QEMU_FEATURES.map(({ name, since }) => [name, since.join(".")]))(
  "the README says that %s needs qemu %s",
  (_name, since) => {
    const readme = readFileSync(join(import.meta.dir, "../../README.md"), "utf8");
    for (const start of ["| `qemu-system-x86_64` ", "Нужны `qemu-system-x86_64` "])
      expect(readme.split("\n").find((line) => line.startsWith(start))).toContain(since);
  },
);
