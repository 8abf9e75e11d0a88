/** Zero clusters in a new overlay, where no image below it holds anything: nothing needs to look there any more. */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import type { ReadImage } from "../machine/types.ts";
import { listAllocated } from "./allocated-clusters.ts";
import type { ByteRange } from "./zero-image.ts";

/** Of an extended L2 entry (docs/interop/qcow2.txt): no cluster, and each of the 32 subclusters reads as zeroes. */
const ENTRY_BYTES = 16;
const ZEROES = Buffer.from("0000000000000000ffffffff00000000", "hex");
const REFCOUNT_BYTES = 2;
const REFCOUNT_ORDER = 4;
/** Incompatible feature: extended L2 entries. */
const SUBCLUSTERS_BIT = 1n << 4n;
const OWN_TABLE_BIT = 1n << 63n;
const HEADER_BYTES = 104;

/**
 * Pure: whole clusters that none of these areas touches, ascending.
 * @param held in any order; they may overlap
 */
export function findHoles(
  held: readonly ByteRange[],
  virtualBytes: number,
  clusterBytes: number,
): ByteRange[] {
  const holes: ByteRange[] = [];
  let end = 0;
  const last: ByteRange = [Math.ceil(virtualBytes / clusterBytes) * clusterBytes, 0];
  for (const [start, length] of [...held.toSorted(([a], [b]) => a - b), last]) {
    const until = Math.min(last[0], start - (start % clusterBytes));
    if (until > end) holes.push([end, until - end]);
    end = Math.max(end, Math.ceil((start + length) / clusterBytes) * clusterBytes);
  }
  return holes;
}

/**
 * Writes them to an overlay that `createImage` has made with subclusters, and that nothing was written to. This takes 128 KiB
 * for each GiB with a hole; qemu-io takes 10 s for 1 TiB.
 * @param base its backing file: nothing is covered if its tables, or those of one below, cannot be read
 * @param isLate once true, tables that are not read yet count as full
 */
export function coverHoles(path: string, base: ReadImage, virtualBytes: number, isLate: () => boolean): void {
  const held: ByteRange[] = [];
  for (let image: ReadImage | undefined = base; image; image = image.base) {
    const ranges = image.format === "qcow2" ? listAllocated(image.path, isLate) : undefined;
    if (!ranges) return;
    held.push(...ranges);
  }
  const fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
  try {
    writeZeroes(fd, held, virtualBytes);
  } finally {
    closeSync(fd);
  }
}

function writeZeroes(fd: number, held: readonly ByteRange[], virtualBytes: number): void {
  const read = (at: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    readSync(fd, bytes, 0, length, at);
    return bytes;
  };
  const header = read(0, HEADER_BYTES);
  const hasSubclusters = (header.readBigUInt64BE(72) & SUBCLUSTERS_BIT) !== 0n;
  if (!hasSubclusters || header.readUInt32BE(96) !== REFCOUNT_ORDER) return;
  const clusterBytes = 2 ** header.readUInt32BE(20);
  const l1At = Number(header.readBigUInt64BE(40));
  const refcountsAt = Number(read(Number(header.readBigUInt64BE(48)), 8).readBigUInt64BE(0));
  const l1 = read(l1At, header.readUInt32BE(36) * 8);
  const entries = clusterBytes / ENTRY_BYTES;
  const tableSpan = entries * clusterBytes;
  const first = Math.ceil(fstatSync(fd).size / clusterBytes);
  const full = Buffer.alloc(clusterBytes, ZEROES);
  let end = first;
  for (const [number, holes] of groupBy(findHoles(held, virtualBytes, clusterBytes), tableSpan)) {
    // One refcount block is of 8 GiB of tables, which is 64 TiB of holes.
    if (end === clusterBytes / REFCOUNT_BYTES) break;
    const isFull = holes.length === 1 && holes[0]![1] === tableSpan;
    const table = isFull ? full : Buffer.alloc(clusterBytes);
    for (const [start, length] of isFull ? [] : holes) {
      const at = (start - number * tableSpan) / clusterBytes;
      table.fill(ZEROES, at * ENTRY_BYTES, (at + length / clusterBytes) * ENTRY_BYTES);
    }
    writeAll(fd, table, end * clusterBytes);
    l1.writeBigUInt64BE(OWN_TABLE_BIT | BigInt(end++ * clusterBytes), number * 8);
  }
  if (end === first) return;
  ftruncateSync(fd, end * clusterBytes);
  const refcounts = Buffer.alloc((end - first) * REFCOUNT_BYTES, Buffer.from([0, 1]));
  writeAll(fd, refcounts, refcountsAt + first * REFCOUNT_BYTES);
  writeAll(fd, l1, l1At);
}

/** Holes by the table that describes them, parted where a table ends. */
function* groupBy(holes: readonly ByteRange[], span: number): Generator<[number, ByteRange[]]> {
  let group: [number, ByteRange[]] | undefined;
  for (const [start, length] of holes)
    for (let at = start; at < start + length;) {
      const table = Math.floor(at / span);
      const until = Math.min(start + length, (table + 1) * span);
      if (group?.[0] !== table) {
        if (group) yield group;
        group = [table, []];
      }
      group[1].push([at, until - at]);
      at = until;
    }
  if (group) yield group;
}

function writeAll(fd: number, bytes: Buffer, at: number): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, at + done);
}
