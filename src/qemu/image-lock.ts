/** Locks that show a qemu. */
import { closeSync, constants, openSync } from "node:fs";
import { flock, isRangeLocked, LOCK_EX, LOCK_NB, LOCK_SH } from "../process/libc.ts";

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

/**
 * Locks qemu's log for all that write to it: qemu, and before it the programs that start it, which have neither its name nor its
 * sockets and images yet. Best effort: a filesystem may have no locks.
 * @param log descriptor that qemu inherits
 */
export function lockLog(log: number): void {
  try {
    flock(log, LOCK_SH | LOCK_NB);
  } catch {}
}

/** Does a process still write to this log? */
export function isLogHeld(path: string): boolean {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    return !flock(fd, LOCK_EX | LOCK_NB);
  } catch {
    return false;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
