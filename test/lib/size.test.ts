import { describe, expect, test } from "bun:test";
import { formatSize, parseSize } from "../../src/lib/size.ts";

const KIB = 1024;
const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const TIB = 1024 ** 4;

describe("parseSize", () => {
  test.each([
    ["1", 1],
    ["512", 512],
    ["007", 7],
    ["1K", KIB],
    ["1k", KIB],
    ["512M", 512 * MIB],
    ["30G", 30 * GIB],
    ["30g", 30 * GIB],
    ["2T", 2 * TIB],
    ["1GB", GIB],
    ["1GiB", GIB],
    ["8191T", 8191 * TIB],
  ])("%s is %d bytes", (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each([
    "",
    "0",
    "0G",
    "-1",
    "+1",
    "G",
    "1 G",
    " 1G",
    "1G ",
    "1G\n",
    "1P",
    "1,5G",
    "1e3",
    "0x10",
    "1KK",
    "1Gi",
    "1iB",
    "9999999T",
    "99999999999999999999",
    "١",
    "NaN",
    "constructor",
  ])("rejects %j", (text) => {
    expect(parseSize(text)).toBeUndefined();
  });

  test.each([
    ["2048", 2048 * MIB],
    ["2G", 2 * GIB],
    ["512K", 512 * KIB],
    ["1M", MIB],
  ])("%s as memory is %d bytes", (text, bytes) => {
    expect(parseSize(text, "M")).toBe(bytes);
  });

  test.each(["512B", "512iB"])("%s as memory is not a number of MiB", (text) => {
    expect(parseSize(text, "M")).not.toBe(512 * MIB);
  });
});

describe("formatSize", () => {
  test.each([
    [0, "0 B"],
    [1, "1 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [1536, "1.5 KiB"],
    [10 * KIB, "10 KiB"],
    [260 * KIB, "260 KiB"],
    [MIB, "1.0 MiB"],
    [1.5 * GIB, "1.5 GiB"],
    [30 * GIB, "30 GiB"],
    [2 * TIB, "2.0 TiB"],
    [5000 * TIB, "5000 TiB"],
    // Rounding must not yield a number that belongs to the next unit or form.
    [MIB - 1, "1.0 MiB"],
    [GIB - 1, "1.0 GiB"],
    [9.96 * KIB, "10 KiB"],
  ])("%d is %s", (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });
});
