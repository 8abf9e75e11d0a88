import { describe, expect, test } from "bun:test";
import { formatDuration, formatTimestamp } from "../../src/lib/time.ts";

describe("formatTimestamp", () => {
  test.each([
    ["2024-01-02T03:04:05", "2024-01-02 03:04:05"],
    ["1999-12-31T23:59:59", "1999-12-31 23:59:59"],
    ["2024-02-29T00:00:00", "2024-02-29 00:00:00"],
  ])("local %s is %s", (local, text) => {
    expect(formatTimestamp(new Date(local))).toBe(text);
  });
});

describe("formatDuration", () => {
  test.each([
    [0, "0.0 s"],
    [0.04, "0.0 s"],
    [8, "8.0 s"],
    [9.94, "9.9 s"],
    [9.95, "10 s"],
    [59.4, "59 s"],
    [59.5, "1 min 00 s"],
    [60, "1 min 00 s"],
    [125, "2 min 05 s"],
    [3599.4, "59 min 59 s"],
    [3599.5, "1 h 00 min"],
    [3780, "1 h 03 min"],
    [90_000, "25 h 00 min"],
  ])("%d seconds are %s", (seconds, text) => {
    expect(formatDuration(seconds)).toBe(text);
  });
});
