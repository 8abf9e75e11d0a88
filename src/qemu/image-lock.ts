import { closeSync, constants, openSync } from "node:fs";
import { isRangeLocked } from "../process/libc.ts";

/** Bytes of an image that qemu locks, one for each permission (block/file-posix.c, RAW_LOCK_PERM_BASE). */
const LOCKED_FROM = 100;
const LOCKED_BYTES = 200;

/** Does a qemu have this image open? Checks qemu's locks, which do not outlive it. Symlinks are not followed. */
export function isImageInUse(path: string): boolean {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch {
    return false;
  }
  try {
    return isRangeLocked(fd, LOCKED_FROM, LOCKED_BYTES);
  } finally {
    closeSync(fd);
  }
}
