import { closeSync, constants, openSync } from "node:fs";
import { isRangeLocked } from "../process/libc.ts";

/** Where qemu locks an image, a byte for each thing it does or allows (block/file-posix.c). */
const LOCKED_FROM = 100;
const LOCKED_BYTES = 200;

/** Has a qemu this image open? Links are not followed. Asks the kernel: a process that has died holds nothing. */
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
