import { closeSync, fstatSync, readSync } from "node:fs";
import { VmError } from "../lib/errors.ts";
import { openForReading, openNamed } from "../lib/read-file.ts";
import type { ImageFormat } from "../machine/types.ts";
import { identifyBlockDevice } from "./block-device.ts";

/**
 * Format and references of an image, from its first bytes. VDI, VHDX and VPC may name a parent further on, which qemu
 * ignores
 * (block/vdi.c, vhdx.c, vpc.c).
 */
export interface ImageHeader {
  format: ImageFormat;
  /** It refers to another file to read from: a backing file, or an external data file (qcow2) or extent (VMDK). */
  refersTo: "backing file" | "data file" | undefined;
  qcow2?: Qcow2Header | undefined;
}

/** Byte range of a file. */
interface Extent {
  start: number;
  end: number;
}

/** Fields of a qcow2 image's header that are used here (docs/interop/qcow2.txt). */
export interface Qcow2Header {
  /** qemu supports its version and cluster size. */
  known: boolean;
  virtualBytes: number;
  clusterBytes: number;
  /** Position of the backing file's name; absent without a backing file. */
  backingName?: Extent;
  /** qemu has marked it corrupt. */
  corrupt: boolean;
  dataFile: boolean;
  /** It has incompatible features that docs/interop/qcow2.txt does not name yet. */
  newer: boolean;
  /** Snapshots within the image (`qemu-img snapshot -c`). */
  internalSnapshots: number;
  /** Metadata tables that the header refers to. */
  tables: (Extent & { name: string })[];
  /** One of `tables`; absent if there are no valid bitmaps. */
  bitmapDirectory?: Extent;
}

interface HeaderInFile {
  qcow2?: Qcow2Header | undefined;
  fileBytes: number;
}

/** A header as read from a file. */
export interface ReadHeader extends ImageHeader, HeaderInFile {
  /** As in the qcow2 header: absolute, or relative to the image's directory. */
  backingName: string | undefined;
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

/** VDI's signature, at byte 64. */
const VDI_MAGIC = "\x7f\x10\xda\xbe";

/** qcow2's feature bits: incompatible ones, and autoclear ones. */
const CORRUPT_BIT = 1n << 1n;
const DATA_FILE_BIT = 1n << 2n;
const BITMAPS_BIT = 1n;
/** Dirty, corrupt, external data file, compression type, extended L2 entries. */
const INCOMPATIBLE_BITS = 0b11111n;

/** Type of the bitmaps header extension. */
const BITMAPS_EXTENSION = 0x23852875;

/** Limit of docs/interop/qcow2.txt. */
const MAX_BACKING_NAME = 1023;

/** Length of a version 3 header without extensions. */
const QCOW2_BYTES = 104;

/** Position and maximum length of a sparse VMDK's descriptor (block/vmdk.c, vmdk_parent_open). */
const VMDK_DESCRIPTOR = 512;
const VMDK_DESCRIPTOR_BYTES = 20 * 512;
export const HEAD_BYTES = VMDK_DESCRIPTOR + VMDK_DESCRIPTOR_BYTES;

/** Pure. @param bytes the first `HEAD_BYTES` of a file, or all of a shorter one */
export function parseImageHeader(bytes: Buffer): ImageHeader {
  const starts = (magic: string, at = 0): boolean =>
    bytes.toString("latin1", at, at + magic.length) === magic;
  const format = starts(VDI_MAGIC, 64) ? "vdi" : (MAGICS.find(([, magic]) => starts(magic))?.[0] ?? "raw");
  if (format === "qcow2") {
    const qcow2 = parseQcow2Header(bytes);
    // A data file is reported first: a backing file may be a snapshot of this VM.
    const refersTo = qcow2.dataFile ? "data file" : qcow2.backingName ? "backing file" : undefined;
    return { format, refersTo, qcow2 };
  }
  let refersTo: ImageHeader["refersTo"];
  // docs/interop/qed_spec.txt: feature bit 0.
  if (format === "qed" && (bytes.readUInt8(16) & 1) !== 0) refersTo = "backing file";
  // A text descriptor lists its extents by name.
  if (format === "vmdk") refersTo = starts("KDMV") ? sparseVmdkRefersTo(bytes) : "data file";
  return { format, refersTo };
}

/** A sparse extent may consist of a descriptor that lists others, or have a parent. */
function sparseVmdkRefersTo(bytes: Buffer): ImageHeader["refersTo"] {
  const listsOthers = bytes.readBigUInt64LE(12) === 0n && bytes.readBigUInt64LE(28) !== 0n;
  if (listsOthers) return "data file";
  const descriptor = bytes.toString("latin1", VMDK_DESCRIPTOR, HEAD_BYTES);
  // qemu looks for the hint only; without it, a disk with a parent would silently lack the parent's data.
  return /parentFileNameHint|parentCID\s*=\s*(?!f{8}\b)/i.test(descriptor) ? "backing file" : undefined;
}

const tableAt = (name: string, start: number, length: number): Qcow2Header["tables"][number] => ({
  name,
  start,
  end: start + length,
});

function parseQcow2Header(head: Buffer): Qcow2Header {
  const bytes = head.length < QCOW2_BYTES ? Buffer.concat([head, Buffer.alloc(QCOW2_BYTES)]) : head;
  const u32 = (at: number): number => bytes.readUInt32BE(at);
  const u64 = (at: number): number => Number(bytes.readBigUInt64BE(at));
  const version = u32(4);
  const clusterBits = u32(20);
  // Version 2 has no feature fields.
  const features = version >= 3 ? bytes.readBigUInt64BE(72) : 0n;
  const autoclear = version >= 3 ? bytes.readBigUInt64BE(88) : 0n;
  const bitmaps = (autoclear & BITMAPS_BIT) === 0n ? undefined : findBitmapDirectory(bytes);
  return {
    // docs/interop/qcow2.txt: clusters of at least 512 bytes; qemu: at most 2 MiB.
    known: (version === 2 || version === 3) && clusterBits >= 9 && clusterBits <= 21,
    virtualBytes: u64(24),
    clusterBytes: 2 ** clusterBits,
    ...(u64(8) > 0 && { backingName: { start: u64(8), end: u64(8) + u32(16) } }),
    corrupt: (features & CORRUPT_BIT) !== 0n,
    dataFile: (features & DATA_FILE_BIT) !== 0n,
    newer: (features & ~INCOMPATIBLE_BITS) !== 0n,
    internalSnapshots: u32(60),
    tables: [
      tableAt("L1 table", u64(40), u32(36) * 8),
      tableAt("refcount table", u64(48), u32(56) * 2 ** clusterBits),
      ...(bitmaps ? [tableAt("bitmap directory", bitmaps.start, bitmaps.end - bitmaps.start)] : []),
    ],
    ...(bitmaps && { bitmapDirectory: bitmaps }),
  };
}

/** Position of the bitmap directory; undefined without that header extension. */
function findBitmapDirectory(bytes: Buffer): Extent | undefined {
  for (let at = bytes.readUInt32BE(100); at + 32 <= bytes.length;) {
    const type = bytes.readUInt32BE(at);
    const length = bytes.readUInt32BE(at + 4);
    if (type === 0) return undefined;
    if (type === BITMAPS_EXTENSION && length >= 24) {
      const start = Number(bytes.readBigUInt64BE(at + 24));
      return { start, end: start + Number(bytes.readBigUInt64BE(at + 16)) };
    }
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return undefined;
}

/**
 * Reads the header of an image that the user or the system named: a file, a block device, or a symlink to one.
 * @throws a system error if it cannot be read, VmError 74 for anything else
 */
export const readImageHeader = (path: string): ReadHeader => readHeader(path, openNamed);

/** Reads the header of a working disk, or of a snapshot's: a regular file. Symlinks are not followed. */
export const readOwnHeader = (path: string): ReadHeader => readHeader(path, openForReading);

function readHeader(path: string, open: (path: string) => number): ReadHeader {
  const fd = open(path);
  const read = (at: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    readSync(fd, bytes, 0, length, at);
    return bytes;
  };
  try {
    const header = parseImageHeader(read(0, HEAD_BYTES));
    const { start, end } = header.qcow2?.backingName ?? { start: 0, end: 0 };
    const named = start > 0 && Number.isSafeInteger(end) && end - start <= MAX_BACKING_NAME;
    return {
      ...header,
      backingName: named ? read(start, end - start).toString() : undefined,
      fileBytes: fstatSync(fd).size,
    };
  } finally {
    closeSync(fd);
  }
}

/** Virtual size of a working disk in bytes; undefined if it is not qcow2, or cannot be read. */
export function readVirtualBytes(path: string): number | undefined {
  try {
    return readOwnHeader(path).qcow2?.virtualBytes;
  } catch {
    return undefined;
  }
}

/**
 * Format and virtual size of an image that the user named; the size is undefined for other formats than qcow2 and raw.
 * @param known its format: a raw image may start with another one's header
 * @returns undefined if it cannot be read
 */
export function inspectImage(
  path: string,
  known?: ImageFormat,
): { format: ImageFormat; virtualBytes: number | undefined } | undefined {
  try {
    const header = readImageHeader(path);
    const format = known ?? header.format;
    if (format === "qcow2") return { format, virtualBytes: header.qcow2?.virtualBytes };
    if (format !== "raw") return { format, virtualBytes: undefined };
    return { format, virtualBytes: header.fileBytes || identifyBlockDevice(path).bytes };
  } catch {
    return undefined;
  }
}

/** Pure: why an image cannot be used as qcow2, or undefined. */
export function findHeaderDamage({ qcow2, fileBytes }: HeaderInFile): string | undefined {
  if (!qcow2?.known) return "it has no qcow2 header";
  if (qcow2.corrupt) return "qemu has marked it corrupt";
  if (qcow2.dataFile) return "it refers to an external data file";
  const outside = qcow2.tables.find(({ start, end }) => start === 0 || end > fileBytes);
  return outside && `its ${outside.name} is beyond the end of the file: it is truncated`;
}

/** Why a disk of a VM or snapshot is not a standalone qcow2 image; undefined if it is. @throws as `readOwnHeader` */
export function findExternalReference(path: string): string | undefined {
  const { format, refersTo } = readOwnHeader(path);
  if (refersTo) return `it refers to an external ${refersTo}`;
  return format === "qcow2" ? undefined : `it is ${format}, not qcow2`;
}

/**
 * Refuses a disk that refers to another file: the guest could read any file of the host through it.
 * @param shown path for the message, such as that of the compressed image
 */
export function refuseExternalReference(path: string, shown = path): void {
  const reason = findExternalReference(path);
  if (reason === undefined) return;
  throw new VmError("io", `refusing ${shown}: ${reason}`, {
    hint: "use another snapshot or copy: disks of a VM are standalone qcow2 images, and this one was modified",
  });
}
