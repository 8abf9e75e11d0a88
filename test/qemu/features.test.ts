import { expect, test } from "bun:test";
import { isSince, LIVE_SINCE } from "../../src/qemu/features.ts";

test.each([
  ["7.1.0", true],
  ["7.2.22", true],
  ["10.0.0", true],
  ["8.0.0", true],
  ["7.0.5", false],
  ["6.9.0", false],
  ["", false],
])("qemu %p makes live snapshots: %p", (version, expected) => {
  expect(isSince(version, LIVE_SINCE)).toBe(expected);
});
