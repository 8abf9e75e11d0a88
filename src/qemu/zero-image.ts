/** A qcow2 image of zero clusters (docs/interop/qcow2.txt). */
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";

/** Start and length in bytes. */
export type ByteRange = [start: number, length: number];

const CLUSTER_BITS = 16;
const CLUSTER = 2 ** CLUSTER_BITS;
const ENTRY_BYTES = 8;
/** Clusters that an L2 table describes. */
const L2_ENTRIES = CLUSTER / ENTRY_BYTES;
const HEADER_BYTES = 104;
/** Clusters of the refcount table, which is empty, and of the L1 table. */
const REFCOUNTS_AT = 1;
const L1_AT = 2;

/** A part of the image file. */
interface FilePart {
  at: number;
  bytes: Buffer;
}

/**
 * Pure: the contents of such an image, without its zeroes. It is for reading only, as it has no refcounts.
 * @param ranges a cluster of 64 KiB that one touches reads as zeroes, the others are unallocated; the part beyond the end
 *   of the disk is ignored
 */
export function buildZeroImage(
  virtualBytes: number,
  ranges: readonly ByteRange[],
): { fileBytes: number; parts: FilePart[] } {
  const l1Entries = Math.ceil(virtualBytes / (CLUSTER * L2_ENTRIES));
  const l1 = Buffer.alloc(l1Entries * ENTRY_BYTES);
  const parts = [
    { at: 0, bytes: buildHeader(virtualBytes, l1Entries) },
    { at: L1_AT * CLUSTER, bytes: l1 },
  ];
  let end = L1_AT + Math.ceil(l1.length / CLUSTER);
  for (const [start, length] of ranges) {
    const last = Math.ceil(Math.min(start + length, virtualBytes) / CLUSTER);
    for (let cluster = Math.floor(start / CLUSTER); cluster < last;) {
      const table = Math.floor(cluster / L2_ENTRIES);
      const until = Math.min(last, (table + 1) * L2_ENTRIES);
      if (l1.readBigUInt64BE(table * ENTRY_BYTES) === 0n)
        l1.writeBigUInt64BE((1n << 63n) | BigInt(end++ * CLUSTER), table * ENTRY_BYTES);
      const l2 = Number(l1.readBigUInt64BE(table * ENTRY_BYTES) & ~(1n << 63n));
      const bytes = Buffer.alloc((until - cluster) * ENTRY_BYTES, Buffer.from([0, 0, 0, 0, 0, 0, 0, 1]));
      parts.push({ at: l2 + (cluster % L2_ENTRIES) * ENTRY_BYTES, bytes });
      cluster = until;
    }
  }
  return { fileBytes: end * CLUSTER, parts };
}

function buildHeader(virtualBytes: number, l1Entries: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write("QFI\xfb", "latin1");
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(CLUSTER_BITS, 20);
  header.writeBigUInt64BE(BigInt(virtualBytes), 24);
  header.writeUInt32BE(l1Entries, 36);
  header.writeBigUInt64BE(BigInt(L1_AT * CLUSTER), 40);
  header.writeBigUInt64BE(BigInt(REFCOUNTS_AT * CLUSTER), 48);
  header.writeUInt32BE(1, 56);
  // Refcounts of 16 bits, the only ones that each qemu knows.
  header.writeUInt32BE(4, 96);
  header.writeUInt32BE(HEADER_BYTES, 100);
  return header;
}

/** Writes such an image to a new, sparse file. */
export function writeZeroImage(path: string, virtualBytes: number, ranges: readonly ByteRange[]): void {
  const { fileBytes, parts } = buildZeroImage(virtualBytes, ranges);
  const fd = openSync(path, "w", 0o600);
  try {
    ftruncateSync(fd, fileBytes);
    for (const { at, bytes } of parts) writeSync(fd, bytes, 0, bytes.length, at);
  } finally {
    closeSync(fd);
  }
}
