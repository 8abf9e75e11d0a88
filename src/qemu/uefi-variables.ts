import { closeSync, fstatSync, readSync } from "node:fs";
import { VmError } from "../lib/errors.ts";
import { openForReading } from "../lib/read-file.ts";
import { readOwnHeader } from "./image-header.ts";

/** Offsets in a firmware volume's header (UEFI PI specification, volume 3, EFI_FIRMWARE_VOLUME_HEADER). */
const LENGTH_AT = 32;
const SIGNATURE_AT = 40;
const SIGNATURE = "_FVH";
const HEADER_BYTES = 44;

/**
 * Pure: is a file of UEFI variables truncated?
 * @param head its first bytes, or all of a shorter file
 * @param bytes its length
 * @returns the damage; undefined if there is none, or without a firmware volume (empty flash, another image format)
 */
export function findTruncation(head: Buffer, bytes: number): string | undefined {
  if (bytes === 0) return "it is empty";
  if (head.toString("latin1", SIGNATURE_AT, HEADER_BYTES) !== SIGNATURE)
    return head.length < HEADER_BYTES ? "it is truncated" : undefined;
  const length = head.readBigUInt64LE(LENGTH_AT);
  return length > BigInt(bytes) ? `it is truncated: ${bytes} of at least ${length} bytes` : undefined;
}

/** @returns as `findTruncation` @throws VmError 74 if it is not a regular file, a system error */
export function findVariablesDamage(path: string): string | undefined {
  const fd = openForReading(path);
  try {
    const head = Buffer.alloc(HEADER_BYTES);
    return findTruncation(head.subarray(0, readSync(fd, head, 0, head.length, 0)), fstatSync(fd).size);
  } finally {
    closeSync(fd);
  }
}

/**
 * Format of a VM's variables for qemu, and their virtual size. A guest can write any bytes to them: a qcow2 header that
 * refers to other files is refused.
 * @throws VmError 74 for such a header, or if it is not a regular file; a system error
 */
export function readVariables(path: string): { format: "qcow2" | "raw"; bytes: number } {
  const { format, refersTo, qcow2, fileBytes } = readOwnHeader(path);
  if (format !== "qcow2") return { format: "raw", bytes: fileBytes };
  if (refersTo)
    throw new VmError("io", `refusing the UEFI variables ${path}: they refer to an external ${refersTo}`, {
      hint: "restore a snapshot",
    });
  return { format, bytes: qcow2?.virtualBytes ?? 0 };
}
