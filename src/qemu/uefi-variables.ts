import { closeSync, fstatSync, readSync } from "node:fs";
import { VmError } from "../lib/errors.ts";
import { lstatOf, openForReading } from "../lib/read-file.ts";
import { formatSize } from "../lib/size.ts";
import { readOwnHeader } from "./image-header.ts";

/** Limit for a file of UEFI variables: that of aarch64 has 64 MiB. */
export const MAX_VARS_BYTES = 256 << 20;

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

/** @returns as `findTruncation`, or that it is too large @throws VmError 74 if it is not a regular file, a system error */
export function findVariablesDamage(path: string): string | undefined {
  const fd = openForReading(path);
  try {
    const head = Buffer.alloc(HEADER_BYTES);
    const { size } = fstatSync(fd);
    if (size > MAX_VARS_BYTES) return `it is larger than ${formatSize(MAX_VARS_BYTES)}`;
    return findTruncation(head.subarray(0, readSync(fd, head, 0, head.length, 0)), size);
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

/** EFI_FIRMWARE_VOLUME_HEADER.HeaderLength; then VARIABLE_STORE_HEADER with its size (edk2, VariableFormat.h). */
const HEADER_LENGTH_AT = 48;
const STORE = { guid: "782cf3aa7b949a43a1802e144ec37792", sizeAt: 16, bytes: 28 };
/** AUTHENTICATED_VARIABLE_HEADER. States of valid ones: VAR_ADDED, and the same in deletion. */
const VARIABLE = { startId: 0x55aa, stateAt: 2, nameSizeAt: 36, dataSizeAt: 40, bytes: 60 };
const ADDED = new Set([0x3f, 0x3e]);

/** Pure: names of the variables in a raw flash image; none without a store of authenticated variables. */
export function listVariables(flash: Buffer): string[] {
  if (flash.length < HEADER_LENGTH_AT + 2) return [];
  const store = flash.readUInt16LE(HEADER_LENGTH_AT);
  if (flash.toString("hex", store, store + STORE.sizeAt) !== STORE.guid) return [];
  const end = Math.min(store + flash.readUInt32LE(store + STORE.sizeAt), flash.length);
  const names: string[] = [];
  for (let at = store + STORE.bytes; at + VARIABLE.bytes <= end;) {
    if (flash.readUInt16LE(at) !== VARIABLE.startId) break;
    const nameBytes = flash.readUInt32LE(at + VARIABLE.nameSizeAt);
    const name = at + VARIABLE.bytes;
    if (ADDED.has(flash[at + VARIABLE.stateAt]!))
      names.push(flash.toString("utf16le", name, Math.max(name, name + nameBytes - 2)));
    // Each is aligned to four bytes.
    at = Math.ceil((name + nameBytes + flash.readUInt32LE(at + VARIABLE.dataSizeAt)) / 4) * 4;
  }
  return names;
}

/** More than any firmware's store, which is at the start of the flash. */
const MAX_STORE_BYTES = 1 << 20;

/**
 * Is a platform key (PK) enrolled in a VM's variables? Without it a firmware does not enforce Secure Boot.
 * @returns undefined if there are none, or if they are not raw
 * @throws as `readVariables`
 */
export const findPlatformKey = (path: string): boolean | undefined =>
  lstatOf(path)?.isFile() && readVariables(path).format === "raw" ? hasPlatformKey(path) : undefined;

/** The same of raw variables. */
export function hasPlatformKey(path: string): boolean {
  const fd = openForReading(path);
  try {
    const flash = Buffer.alloc(Math.min(MAX_STORE_BYTES, fstatSync(fd).size));
    return listVariables(flash.subarray(0, readSync(fd, flash, 0, flash.length, 0))).includes("PK");
  } finally {
    closeSync(fd);
  }
}
