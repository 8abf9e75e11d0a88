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

/** A valid variable in a flash image. */
interface StoredVariable {
  name: string;
  /** Header without its state, name and data. */
  content: Buffer;
}

/** Pure: the valid variables in a raw flash image; undefined without a store of authenticated variables. */
function readStore(flash: Buffer): StoredVariable[] | undefined {
  if (flash.length < HEADER_LENGTH_AT + 2) return undefined;
  const store = flash.readUInt16LE(HEADER_LENGTH_AT);
  if (flash.toString("hex", store, store + STORE.sizeAt) !== STORE.guid) return undefined;
  const end = Math.min(store + flash.readUInt32LE(store + STORE.sizeAt), flash.length);
  const variables: StoredVariable[] = [];
  for (let at = store + STORE.bytes; at + VARIABLE.bytes <= end;) {
    if (flash.readUInt16LE(at) !== VARIABLE.startId) break;
    const nameBytes = flash.readUInt32LE(at + VARIABLE.nameSizeAt);
    const name = at + VARIABLE.bytes;
    const after = name + nameBytes + flash.readUInt32LE(at + VARIABLE.dataSizeAt);
    if (ADDED.has(flash[at + VARIABLE.stateAt]!))
      variables.push({
        name: flash.toString("utf16le", name, Math.max(name, name + nameBytes - 2)),
        content: flash.subarray(at + VARIABLE.stateAt + 1, after),
      });
    // Each is aligned to four bytes.
    at = Math.ceil(after / 4) * 4;
  }
  return variables;
}

/** Pure: names of the variables in a raw flash image; none without a store of authenticated variables. */
export const listVariables = (flash: Buffer): string[] => (readStore(flash) ?? []).map(({ name }) => name);

/**
 * Variables that firmware writes at each boot, for itself: a counter of boots (UEFI specification, GetNextMonotonicCount),
 * and how much memory of each kind to reserve (edk2, MemoryTypeInformation.h).
 */
const OF_EACH_BOOT = new Set(["MTC", "MemoryTypeInformation"]);

/**
 * Pure: a text that is equal for flash images with the same variables, wherever they are in the image, besides those of
 * each boot. @returns undefined without a store of authenticated variables
 */
export const identifyVariables = (flash: Buffer): string | undefined =>
  readStore(flash)
    ?.filter(({ name }) => !OF_EACH_BOOT.has(name))
    .map(({ content }) => content.toString("base64"))
    .toSorted()
    .join("\n");

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
