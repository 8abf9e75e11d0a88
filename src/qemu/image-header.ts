import { closeSync, fstatSync, readSync } from "node:fs";
import { VmError } from "../lib/errors.ts";
import { openForReading, openNamed } from "../lib/read-file.ts";
import type { ImageFormat } from "../machine/types.ts";

/**
 * What an image's first bytes say. VDI, VHDX and VPC may name a parent further on; qemu reads none of these
 * (block/vdi.c, vhdx.c, vpc.c).
 */
export interface ImageHeader {
  format: ImageFormat;
  /** It names another file to read from: a backing file, or (qcow2) an external data file. */
  refersTo: "backing file" | "data file" | undefined;
}

const QCOW2_MAGIC = "QFI\xfb";

const MAGICS: readonly [ImageFormat, string][] = [
  ["qcow2", QCOW2_MAGIC],
  ["vmdk", "KDMV"],
  ["vmdk", "# Disk DescriptorFile"],
  ["vhdx", "vhdxfile"],
  ["vpc", "conectix"],
  ["qed", "QED\0"],
];

/** VDI's signature stands at byte 64. */
const VDI_MAGIC = "\x7f\x10\xda\xbe";

/** qcow2's incompatible feature "external data file" (docs/interop/qcow2.txt). */
const DATA_FILE_BIT = 1n << 2n;

/** Its incompatible feature "corrupt bit": qemu found the image's metadata inconsistent, and refuses to write to it. */
const CORRUPT_BIT = 1n << 1n;

/** Where qemu looks for a sparse VMDK's descriptor, and how far (block/vmdk.c, vmdk_parent_open). */
const VMDK_DESCRIPTOR = 512;
const VMDK_DESCRIPTOR_BYTES = 20 * 512;
const HEAD_BYTES = VMDK_DESCRIPTOR + VMDK_DESCRIPTOR_BYTES;

export function parseImageHeader(bytes: Buffer): ImageHeader {
  const starts = (magic: string, at = 0): boolean =>
    bytes.toString("latin1", at, at + magic.length) === magic;
  const format = starts(VDI_MAGIC, 64) ? "vdi" : (MAGICS.find(([, magic]) => starts(magic))?.[0] ?? "raw");
  let refersTo: ImageHeader["refersTo"];
  if (format === "qcow2") {
    // Version 2 has no feature fields. The worse claim is told: a backing file may be one of ours.
    if (bytes.readUInt32BE(4) >= 3 && (bytes.readBigUInt64BE(72) & DATA_FILE_BIT) !== 0n)
      refersTo = "data file";
    else if (bytes.readBigUInt64BE(8) !== 0n) refersTo = "backing file";
  }
  // docs/interop/qed_spec.txt: feature bit 0.
  if (format === "qed" && (bytes.readUInt8(16) & 1) !== 0) refersTo = "backing file";
  // A text descriptor lists its extents by name.
  if (format === "vmdk") refersTo = starts("KDMV") ? sparseVmdkRefersTo(bytes) : "data file";
  return { format, refersTo };
}

/** A sparse extent may still be no more than a list of others, or lie over a parent. */
function sparseVmdkRefersTo(bytes: Buffer): ImageHeader["refersTo"] {
  const listsOthers = bytes.readBigUInt64LE(12) === 0n && bytes.readBigUInt64LE(28) !== 0n;
  if (listsOthers) return "data file";
  const descriptor = bytes.toString("latin1", VMDK_DESCRIPTOR, HEAD_BYTES);
  return descriptor.includes("parentFileNameHint") ? "backing file" : undefined;
}

/**
 * Reads the header of an image that the user named: a file, a block device, or a link to one.
 * @throws a system error when it cannot be read, VmError 74 for anything else
 */
export const readImageHeader = (path: string): ImageHeader =>
  parseImageHeader(readPart(path, 0, HEAD_BYTES, openNamed));

/** The same of a working disk, or of a snapshot's: a regular file, and no link. */
export const readOwnHeader = (path: string): ImageHeader => parseImageHeader(readPart(path, 0, HEAD_BYTES));

/** Bytes of a file; zeroes where it has ended. */
function readPart(path: string, at: number, length: number, open = openForReading): Buffer {
  const fd = open(path);
  try {
    const bytes = Buffer.alloc(length);
    readSync(fd, bytes, 0, length, at);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

/** QCOW2 allows no longer one (docs/interop/qcow2.txt). */
const MAX_BACKING_NAME = 1023;

/** The backing file that a qcow2 image names; undefined where it stands alone, or is no such image. */
export function readBackingName(path: string): string | undefined {
  const head = readPart(path, 0, 20);
  const at = Number(head.readBigUInt64BE(8));
  const length = head.readUInt32BE(16);
  if (head.toString("latin1", 0, 4) !== QCOW2_MAGIC || at === 0 || length > MAX_BACKING_NAME)
    return undefined;
  return readPart(path, at, length).toString();
}

/** Why an image of ours cannot be trusted to be all of itself; undefined where it can. @throws as `readOwnHeader` */
export function findForeignPart(path: string): string | undefined {
  const { format, refersTo } = readOwnHeader(path);
  if (refersTo) return `it refers to an external ${refersTo}`;
  return format === "qcow2" ? undefined : `it is ${format}, not qcow2`;
}

/**
 * Refuses an image of ours that claims to continue in another file: such a claim can show the guest any file of the host.
 * @param shown what it is unpacked from, say, for the message
 */
export function refuseForeignParts(path: string, shown = path): void {
  const reason = findForeignPart(path);
  if (reason === undefined) return;
  throw new VmError("io", `refusing ${shown}: ${reason}`, {
    hint: "a disk of ours is one whole qcow2 file; this one was changed or comes from somewhere else",
  });
}

/** The size of the disk that a qcow2 image of ours holds, in bytes; undefined when it is none. */
export const readVirtualBytes = (path: string): number | undefined => virtualBytesOf(path, openForReading);

/** The same of an image that the user or the system named. */
export const readNamedVirtualBytes = (path: string): number | undefined => virtualBytesOf(path, openNamed);

function virtualBytesOf(path: string, open: typeof openNamed): number | undefined {
  try {
    const head = readPart(path, 0, 32, open);
    return head.toString("latin1", 0, 4) === QCOW2_MAGIC ? Number(head.readBigUInt64BE(24)) : undefined;
  } catch {
    return undefined;
  }
}

/** What matters of a qcow2 image's header (docs/interop/qcow2.txt). */
export interface Qcow2Header {
  virtualBytes: number;
  clusterBytes: number;
  /** qemu has marked it corrupt. */
  corrupt: boolean;
  dataFile: boolean;
  /** Snapshots within the image (`qemu-img snapshot -c`). */
  internalSnapshots: number;
  /** Where its tables of clusters begin and end. */
  tables: { name: string; start: number; end: number }[];
  /** One of these, where it has bitmaps that hold. */
  bitmapDirectory: { name: string; start: number; end: number } | undefined;
}

const table = (name: string, start: bigint, length: number): Qcow2Header["tables"][number] => ({
  name,
  start: Number(start),
  end: Number(start) + length,
});

/** The feature bit and the header extension of dirty bitmaps (docs/interop/qcow2.txt). */
const BITMAPS_BIT = 1n;
const BITMAPS_EXTENSION = 0x23852875;

/** Where the directory of dirty bitmaps is; undefined where there are none that hold. */
function findBitmapDirectory(bytes: Buffer): Qcow2Header["tables"][number] | undefined {
  if ((bytes.readBigUInt64BE(88) & BITMAPS_BIT) === 0n) return undefined;
  for (let at = bytes.readUInt32BE(100); at + 32 <= bytes.length;) {
    const type = bytes.readUInt32BE(at);
    const length = bytes.readUInt32BE(at + 4);
    if (type === 0) return undefined;
    if (type === BITMAPS_EXTENSION && length >= 24)
      return table(
        "bitmap directory",
        bytes.readBigUInt64BE(at + 24),
        Number(bytes.readBigUInt64BE(at + 16)),
      );
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return undefined;
}

/** Pure. @param bytes the first of the file, its header extensions among them; 104 at least @returns undefined where they are no qcow2 header */
export function parseQcow2Header(bytes: Buffer): Qcow2Header | undefined {
  if (bytes.length < 104 || bytes.toString("latin1", 0, 4) !== QCOW2_MAGIC) return undefined;
  const version = bytes.readUInt32BE(4);
  const clusterBits = bytes.readUInt32BE(20);
  // docs/interop/qcow2.txt: at least 512 bytes; qemu: at most 2 MiB.
  if ((version !== 2 && version !== 3) || clusterBits < 9 || clusterBits > 21) return undefined;
  const features = version >= 3 ? bytes.readBigUInt64BE(72) : 0n;
  const bitmaps = version >= 3 ? findBitmapDirectory(bytes) : undefined;
  return {
    virtualBytes: Number(bytes.readBigUInt64BE(24)),
    clusterBytes: 2 ** clusterBits,
    corrupt: (features & CORRUPT_BIT) !== 0n,
    dataFile: (features & DATA_FILE_BIT) !== 0n,
    internalSnapshots: bytes.readUInt32BE(60),
    tables: [
      table("L1 table", bytes.readBigUInt64BE(40), bytes.readUInt32BE(36) * 8),
      table("refcount table", bytes.readBigUInt64BE(48), bytes.readUInt32BE(56) * 2 ** clusterBits),
      ...(bitmaps ? [bitmaps] : []),
    ],
    bitmapDirectory: bitmaps,
  };
}

/** Pure: why an image of this header cannot be used, or undefined. @param fileBytes the file's length */
export function findHeaderDamage(header: Qcow2Header | undefined, fileBytes: number): string | undefined {
  if (!header) return "it has no qcow2 header";
  if (header.corrupt) return "qemu has marked it corrupt";
  if (header.dataFile) return "it refers to an external data file";
  const outside = header.tables.find(({ start, end }) => start === 0 || end > fileBytes);
  return outside && `its ${outside.name} is not within the file: it was cut short`;
}

/**
 * Reads the header of a qcow2 image, a regular file.
 * @returns it (undefined where there is none), and why the image cannot be used
 * @throws a system error, VmError 74 for what is no regular file
 */
export function readQcow2Header(path: string): {
  header: Qcow2Header | undefined;
  damage: string | undefined;
} {
  const fd = openForReading(path);
  try {
    const bytes = Buffer.alloc(HEAD_BYTES);
    readSync(fd, bytes, 0, bytes.length, 0);
    const header = parseQcow2Header(bytes);
    return { header, damage: findHeaderDamage(header, fstatSync(fd).size) };
  } finally {
    closeSync(fd);
  }
}
