import { expect, test } from "bun:test";
import { findCut } from "../../src/qemu/uefi-variables.ts";

/** The head of a firmware volume of that length. */
function volume(length: number): Buffer {
  const head = Buffer.alloc(44);
  head.writeBigUInt64LE(BigInt(length), 32);
  head.write("_FVH", 40);
  return head;
}

test.each([
  ["whole", volume(540672), 540672, undefined],
  ["longer than the volume, as on aarch64", volume(786432), 64 << 20, undefined],
  ["one byte short", volume(540672), 540671, "cut short"],
  ["half", volume(131072), 65536, "cut short"],
  ["empty", Buffer.alloc(0), 0, "empty"],
  ["a few bytes", Buffer.alloc(10), 10, "cut short"],
  ["empty flash", Buffer.alloc(44), 540672, undefined],
])("%s", (_title, head, bytes, expected) => {
  const found = findCut(head, bytes);
  if (expected === undefined) expect(found).toBeUndefined();
  else expect(found).toContain(expected);
});
