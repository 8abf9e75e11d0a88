import { closeSync, readSync } from "node:fs";
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

/** Refuses an image of ours that claims to continue in another file: such a claim can show the guest any file of the host. */
export function refuseForeignParts(path: string): void {
  const { format, refersTo } = readOwnHeader(path);
  if (format === "qcow2" && !refersTo) return;
  const reason = refersTo ? `it names a ${refersTo} outside` : `it is ${format}, not qcow2`;
  throw new VmError("io", `${path} is not believed: ${reason}`, {
    hint: "a disk of ours is one whole qcow2 file; this one was changed or comes from somewhere else",
  });
}

/** The size of the disk that a qcow2 image of ours holds, in bytes; undefined when it is none. */
export function readVirtualBytes(path: string): number | undefined {
  try {
    const head = readPart(path, 0, 32);
    return head.toString("latin1", 0, 4) === QCOW2_MAGIC ? Number(head.readBigUInt64BE(24)) : undefined;
  } catch {
    return undefined;
  }
}
