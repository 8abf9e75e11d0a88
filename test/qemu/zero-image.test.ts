import { expect, test } from "bun:test";
import { statSync } from "node:fs";
import { findHeaderDamage, readOwnHeader } from "../../src/qemu/image-header.ts";
import { buildZeroImage, writeZeroImage, type ByteRange } from "../../src/qemu/zero-image.ts";
import { Temp } from "../fixtures/temp.ts";

const K = 1024;
const CLUSTER = 64 * K;
/** What one L2 table describes. */
const TABLE = 512 * K * K;

/** The L2 entries in a file, by cluster number of the disk. */
function zeroClusters(virtualBytes: number, ranges: readonly ByteRange[]): number[] {
  const { fileBytes, parts } = buildZeroImage(virtualBytes, ranges);
  const file = Buffer.alloc(fileBytes);
  for (const { at, bytes } of parts) bytes.copy(file, at);
  const found: number[] = [];
  for (let table = 0; table < file.readUInt32BE(36); table++) {
    const entry = file.readBigUInt64BE(Number(file.readBigUInt64BE(40)) + table * 8);
    if (entry === 0n) continue;
    const l2 = Number(entry & 0x00ff_ffff_ffff_fe00n);
    expect(l2 % CLUSTER).toBe(0);
    for (let index = 0; index < TABLE / CLUSTER; index++)
      if (file.readBigUInt64BE(l2 + index * 8) === 1n) found.push(table * (TABLE / CLUSTER) + index);
  }
  return found;
}

test.each<[string, number, ByteRange[], number[]]>([
  ["nothing", TABLE, [], []],
  ["one cluster", TABLE, [[CLUSTER, CLUSTER]], [1]],
  ["parts of clusters", TABLE, [[CLUSTER - 1, 2]], [0, 1]],
  ["a range over two tables", 3 * TABLE, [[TABLE - CLUSTER, 2 * CLUSTER]], [8191, 8192]],
  [
    "two ranges of one table",
    TABLE,
    [
      [0, 1],
      [5 * CLUSTER, CLUSTER],
    ],
    [0, 5],
  ],
  ["the end of a disk of another size", CLUSTER + 512, [[CLUSTER, CLUSTER]], [1]],
  [
    "ranges beyond the end",
    2 * CLUSTER,
    [
      [CLUSTER, TABLE],
      [TABLE, CLUSTER],
    ],
    [1],
  ],
])("zero clusters of %s", (_what, virtualBytes, ranges, expected) => {
  expect(zeroClusters(virtualBytes, ranges)).toEqual(expected);
});

test("a disk of 1 TiB: a valid header, and a file that holds one table for each 512 MiB with data", () => {
  using temp = new Temp();
  const path = temp.path("zeroes.qcow2");
  writeZeroImage(path, 2 ** 40, [
    [0, CLUSTER],
    [2 ** 39, CLUSTER],
  ]);
  const header = readOwnHeader(path);
  expect(findHeaderDamage(header)).toBeUndefined();
  expect(header).toMatchObject({ format: "qcow2", qcow2: { virtualBytes: 2 ** 40 } });
  expect(statSync(path).size).toBe(5 * CLUSTER);
});
