import { closeSync, fstatSync, readSync } from "node:fs";
import { openForReading } from "../lib/read-file.ts";
import type { ByteRange } from "./zero-image.ts";

const HEADER_BYTES = 104;
/** Position in an L1 entry, and an incompatible feature (docs/interop/qcow2.txt). */
const TABLE_BITS = 0x00ff_ffff_ffff_fe00n;
const SUBCLUSTERS_BIT = 1n << 4n;

/** Of all L2 tables of an image: 8 TiB in clusters of 64 KiB. */
const MOST_TABLE_BYTES = 2 ** 30;

/**
 * The areas that a qcow2 image holds itself, without its backing file: ascending, in its clusters, joined where they touch.
 * Its tables are read here, which takes a tenth of `qemu-img map`.
 * @param isLate once true, a table that is not read yet counts as full
 * @returns undefined if they are damaged or too large
 */
export function listAllocated(path: string, isLate = (): boolean => false): ByteRange[] | undefined {
  try {
    const fd = openForReading(path);
    try {
      return readTables(fd, isLate);
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
}

function readTables(fd: number, isLate: () => boolean): ByteRange[] | undefined {
  const fileBytes = fstatSync(fd).size;
  /** Throws beyond the end of the file. */
  const read = (at: number, length: number): Buffer => {
    if (length > fileBytes) throw new RangeError();
    const bytes = Buffer.alloc(length);
    if (readSync(fd, bytes, 0, length, at) < length) throw new RangeError();
    return bytes;
  };
  const header = read(0, HEADER_BYTES);
  const clusterBytes = 2 ** Math.min(21, header.readUInt32BE(20));
  const virtualBytes = Number(header.readBigUInt64BE(24));
  const hasFeatures = header.readUInt32BE(4) > 2;
  const hasSubclusters = hasFeatures && (header.readBigUInt64BE(72) & SUBCLUSTERS_BIT) !== 0n;
  const entryBytes = hasSubclusters ? 16 : 8;
  const entries = clusterBytes / entryBytes;
  const l1Entries = Math.ceil(virtualBytes / clusterBytes / entries);
  const l1 = read(Number(header.readBigUInt64BE(40)), l1Entries * 8);
  const ranges: ByteRange[] = [];
  let tableBytes = 0;
  let end = -1;
  const add = (start: number, wanted: number): void => {
    const length = Math.min(wanted, virtualBytes - start);
    if (start === end) ranges.at(-1)![1] += length;
    else ranges.push([start, length]);
    end = start + length;
  };
  for (let table = 0; table < l1Entries; table++) {
    const at = Number(l1.readBigUInt64BE(table * 8) & TABLE_BITS);
    if (at === 0) continue;
    if (isLate()) {
      add(table * entries * clusterBytes, entries * clusterBytes);
      continue;
    }
    tableBytes += clusterBytes;
    if (tableBytes > Math.min(fileBytes, MOST_TABLE_BYTES)) return undefined;
    const l2 = read(at, clusterBytes);
    const words = new Uint32Array(l2.buffer, l2.byteOffset, clusterBytes / 4);
    for (let entry = 0, word = 0; entry < entries; entry++, word += entryBytes / 4) {
      const isHeld =
        words[word] || words[word + 1] || (hasSubclusters && (words[word + 2] || words[word + 3]));
      if (!isHeld) continue;
      const start = (table * entries + entry) * clusterBytes;
      if (start >= virtualBytes) break;
      add(start, clusterBytes);
    }
  }
  return ranges;
}
