/** Persistent dirty bitmaps in a qcow2 image (docs/interop/qcow2.txt, "Bitmaps"). */
import { closeSync, constants, fdatasyncSync, openSync, readSync, writeSync } from "node:fs";
import { findHeaderDamage, readOwnHeader } from "./image-header.ts";

/** Offset of the last byte of a header's autoclear features, with bit 0: bitmaps. */
const AUTOCLEAR_END = 95;

const ENTRY_BYTES = 24;
const MAX_BITMAPS = 65_535;
const MAX_NAME_BYTES = 1023;
/** Longer directories are not checked: those of this program have a few entries. */
const MAX_DIRECTORY_BYTES = 1 << 20;

/**
 * Pure: is a bitmap directory valid (block/qcow2-bitmap.c, check_dir_entry and bitmap_list_load)? With an invalid one, qemu
 * does not open the image, not even read-only.
 */
export function isBitmapDirectory(bytes: Buffer, clusterBytes: number): boolean {
  let at = 0;
  for (let count = 0; at < bytes.length; count++) {
    if (count >= MAX_BITMAPS || at + ENTRY_BYTES > bytes.length) return false;
    const tableOffset = bytes.readBigUInt64BE(at);
    const type = bytes.readUInt8(at + 16);
    const granularityBits = bytes.readUInt8(at + 17);
    const nameBytes = bytes.readUInt16BE(at + 18);
    const extraBytes = bytes.readUInt32BE(at + 20);
    const good =
      tableOffset !== 0n &&
      tableOffset % BigInt(clusterBytes) === 0n &&
      bytes.readUInt32BE(at + 8) > 0 &&
      type === 1 &&
      granularityBits >= 9 &&
      granularityBits <= 31 &&
      nameBytes > 0 &&
      nameBytes <= MAX_NAME_BYTES &&
      extraBytes === 0;
    if (!good) return false;
    at += Math.ceil((ENTRY_BYTES + nameBytes) / 8) * 8;
  }
  return at === bytes.length;
}

/**
 * Disables invalid bitmaps, which keep qemu from opening a working disk. A qemu that cannot write its bitmaps when it
 * exits (full or failing disk, power cut) leaves them invalid. Guest data is not changed. No other process may have the
 * disk open.
 * @returns whether the bitmaps were invalid
 * @throws a system error
 */
export function dropBrokenBitmaps(path: string): boolean {
  const header = readOwnHeader(path);
  const { bitmapDirectory: directory, clusterBytes = 0 } = header.qcow2 ?? {};
  if (
    !directory ||
    findHeaderDamage(header) !== undefined ||
    directory.end - directory.start > MAX_DIRECTORY_BYTES
  )
    return false;
  const fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const bytes = Buffer.alloc(directory.end - directory.start);
    readSync(fd, bytes, 0, bytes.length, directory.start);
    if (isBitmapDirectory(bytes, clusterBytes)) return false;
    const features = Buffer.alloc(1);
    readSync(fd, features, 0, 1, AUTOCLEAR_END);
    writeSync(fd, Buffer.of(features[0]! & ~1), 0, 1, AUTOCLEAR_END);
    fdatasyncSync(fd);
    return true;
  } finally {
    closeSync(fd);
  }
}
