import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { findTruncation, readVariables } from "../../src/qemu/uefi-variables.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

/** The header of a firmware volume of that length. */
function volume(length: number): Buffer {
  const head = Buffer.alloc(44);
  head.writeBigUInt64LE(BigInt(length), 32);
  head.write("_FVH", 40);
  return head;
}

test.each([
  ["whole", volume(540672), 540672, undefined],
  ["longer than the volume, as on aarch64", volume(786432), 64 << 20, undefined],
  ["one byte short", volume(540672), 540671, "truncated"],
  ["half", volume(131072), 65536, "truncated"],
  ["empty", Buffer.alloc(0), 0, "empty"],
  ["a few bytes", Buffer.alloc(10), 10, "truncated"],
  ["empty flash", Buffer.alloc(44), 540672, undefined],
])("%s", (_title, head, bytes, expected) => {
  const found = findTruncation(head, bytes);
  if (expected === undefined) expect(found).toBeUndefined();
  else expect(found).toContain(expected);
});

/** A qcow2 header. @param backingAt offset of the backing file's name */
function qcow2(virtualBytes: bigint, backingAt = 0n): Buffer {
  const head = Buffer.alloc(104);
  head.write("QFI\xfb", "latin1");
  head.writeUInt32BE(3, 4);
  head.writeBigUInt64BE(backingAt, 8);
  head.writeBigUInt64BE(virtualBytes, 24);
  return head;
}

test.each([
  ["raw: the file's size", volume(131072), { format: "raw", bytes: 44 }],
  ["qcow2: the virtual size", qcow2(540672n), { format: "qcow2", bytes: 540672 }],
] as const)("reads the variables' format and size: %s", (_title, content, expected) => {
  using temp = new Temp();
  const path = temp.write("efivars.bin", "");
  writeFileSync(path, content);
  expect(readVariables(path)).toEqual(expected);
});

test("refuses variables that refer to an external backing file (74)", async () => {
  using temp = new Temp();
  const path = temp.write("efivars.bin", "");
  writeFileSync(path, qcow2(540672n, 200n));
  expect((await failureOf(() => readVariables(path))).exitCode).toBe(74);
});
