import { fileKindOf, lstatOf } from "../lib/read-file.ts";
import { formatSize } from "../lib/size.ts";
import { findTruncation, MAX_VARS_BYTES } from "../qemu/uefi-variables.ts";
import { TPM_STATE, WORK } from "./layout.ts";

/** A state of swtpm has some KiB; it reads the whole of it. */
export const MAX_TPM_BYTES = 1 << 20;
/** Small texts in an ISO 9660 volume. */
const MAX_SEED_BYTES = 64 << 20;

/** Working files that snapshots contain besides disks, by their names there; with limits in bytes, far above what they have. */
export const SMALL_FILES: ReadonlyMap<string, number> = new Map([
  [WORK.efivars, MAX_VARS_BYTES],
  [WORK.seed, MAX_SEED_BYTES],
  [TPM_STATE, MAX_TPM_BYTES],
]);

/** Pure: `it is larger than 1.0 MiB`; undefined for a size that a small file can have. */
export function findOversize(name: string, bytes: number): string | undefined {
  const limit = SMALL_FILES.get(name) ?? Infinity;
  return bytes > limit ? `it is larger than ${formatSize(limit)}` : undefined;
}

/** Why a small working file cannot be read whole: its kind, or its size. */
export function findSmallFileProblem(name: string, path: string): string | undefined {
  const stats = lstatOf(path);
  if (!stats) return undefined;
  return stats.isFile() ? findOversize(name, stats.size) : `it is ${fileKindOf(stats)}, not a regular file`;
}

/** Enough of a small file for `findSmallFileDamage`. */
export const SMALL_HEAD_BYTES = 64;

/** swtpm's header, big-endian: version, minimum version, its own length, flags; the file's length (blobheader, swtpm_nvstore.c). */
const HEADER = { lengthAt: 6, bytes: 10 };

/**
 * Pure: is a state of swtpm truncated, or not one?
 * @param head its first bytes, or all of a shorter file
 * @param bytes its length
 */
export function findTpmDamage(head: Buffer, bytes: number): string | undefined {
  if (bytes === 0) return "it is empty";
  if (head.length < HEADER.bytes) return "it is truncated";
  const length = head.readUInt32BE(HEADER.lengthAt);
  return length === bytes ? undefined : `it is damaged: it has ${bytes} bytes, and ${length} by its header`;
}

/**
 * Pure: is the content of a small file truncated, or not what its name says?
 * @param head its first `SMALL_HEAD_BYTES`, or all of a shorter file
 * @param bytes its length
 */
export function findSmallFileDamage(name: string, head: Buffer, bytes: number): string | undefined {
  const excess = findOversize(name, bytes);
  if (excess !== undefined) return excess;
  if (name === TPM_STATE) return findTpmDamage(head, bytes);
  return name === WORK.efivars ? findTruncation(head, bytes) : undefined;
}
