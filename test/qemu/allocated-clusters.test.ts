import { expect, test } from "bun:test";
import { truncateSync, writeFileSync } from "node:fs";
import { listAllocated } from "../../src/qemu/allocated-clusters.ts";
import { buildZeroImage, writeZeroImage, type ByteRange } from "../../src/qemu/zero-image.ts";
import { Temp } from "../fixtures/temp.ts";

const CLUSTER = 2 ** 16;
const TIB = 2 ** 40;

test.each<[string, number, ByteRange[], ByteRange[]]>([
  ["nothing", TIB, [], []],
  ["one cluster", TIB, [[CLUSTER, 1]], [[CLUSTER, CLUSTER]]],
  [
    "clusters that touch",
    TIB,
    [
      [0, CLUSTER],
      [CLUSTER, CLUSTER],
    ],
    [[0, 2 * CLUSTER]],
  ],
  [
    "clusters of two tables that touch",
    TIB,
    [[2 ** 29 - CLUSTER, 2 * CLUSTER]],
    [[2 ** 29 - CLUSTER, 2 * CLUSTER]],
  ],
  [
    "places far apart",
    TIB,
    [
      [3 * CLUSTER, CLUSTER],
      [TIB - CLUSTER, CLUSTER],
    ],
    [
      [3 * CLUSTER, CLUSTER],
      [TIB - CLUSTER, CLUSTER],
    ],
  ],
  ["a last cluster that the disk ends in", CLUSTER + 512, [[CLUSTER, 512]], [[CLUSTER, 512]]],
])("the areas that an image holds: %s", (_what, virtualBytes, ranges, expected) => {
  using temp = new Temp();
  const path = temp.path("image.qcow2");
  writeZeroImage(path, virtualBytes, ranges);
  expect(listAllocated(path)).toEqual(expected);
});

test.each<[string, (image: Buffer) => void]>([
  ["that is cut off", (image) => image.fill(0, 0, 1)],
  ["with a table beyond its end", (image) => image.writeBigUInt64BE(1n << 40n, 2 * CLUSTER)],
  ["with a huge L1 table", (image) => image.writeBigUInt64BE(1n << 62n, 24)],
  [
    "with more tables than fit in it",
    (image) => {
      const table = image.readBigUInt64BE(2 * CLUSTER);
      for (let entry = 0; entry < 8; entry++) image.writeBigUInt64BE(table, 2 * CLUSTER + entry * 8);
    },
  ],
])("an image %s cannot tell", (what, damage) => {
  using temp = new Temp();
  const path = temp.path("image.qcow2");
  const { fileBytes, parts } = buildZeroImage(2 ** 34, [[0, CLUSTER]]);
  const image = Buffer.alloc(fileBytes);
  for (const { at, bytes } of parts) bytes.copy(image, at);
  damage(image);
  writeFileSync(path, image);
  if (what.endsWith("cut off")) truncateSync(path, 50);
  expect(listAllocated(path)).toBeUndefined();
});

test("subclusters: an entry is held if it has a cluster, or zeroes", () => {
  using temp = new Temp();
  const path = temp.path("image.qcow2");
  const { fileBytes, parts } = buildZeroImage(2 ** 29, []);
  const image = Buffer.alloc(fileBytes + CLUSTER);
  for (const { at, bytes } of parts) bytes.copy(image, at);
  image.writeBigUInt64BE(1n << 4n, 72);
  image.writeBigUInt64BE(BigInt(fileBytes), 2 * CLUSTER);
  image.writeBigUInt64BE(1n, fileBytes + 16 + 8);
  image.writeBigUInt64BE(BigInt(fileBytes), fileBytes + 48);
  writeFileSync(path, image);
  expect(listAllocated(path)).toEqual([
    [CLUSTER, CLUSTER],
    [3 * CLUSTER, CLUSTER],
  ]);
});
