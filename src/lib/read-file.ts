/** Reads files that another user, a guest or a power cut may have made: links, pipes and huge ones among them. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  realpathSync,
  statSync,
  type Stats,
} from "node:fs";
import { hasErrno, reasonOf, VmError } from "./errors.ts";
import { moveAside } from "./shell.ts";
import { formatSize } from "./size.ts";

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;

/** The resolved path; undefined if it does not exist or is not accessible. */
export function realPath(path: string): string | undefined {
  try {
    return existsSync(path) ? realpathSync.native(path) : undefined;
  } catch {
    return undefined;
  }
}

/** Is this path one that may not be looked at, rather than one that does not exist? */
export function isForbidden(path: string): boolean {
  try {
    statSync(path);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EACCES";
  }
}

/** lstat, or undefined when nothing is there. */
export function lstatOf(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}

/** What kind of file it is: `a named pipe`. */
export function fileKindOf(stats: Stats): string {
  if (stats.isFile()) return "a regular file";
  if (stats.isSymbolicLink()) return "a symbolic link";
  if (stats.isDirectory()) return "a directory";
  if (stats.isFIFO()) return "a named pipe";
  if (stats.isSocket()) return "a socket";
  return "a device";
}

const unreadable = (path: string, brief: string): VmError =>
  new VmError("io", `cannot read ${path}: ${brief}`, {
    reason: "unreadable",
    brief,
    hint: moveAside(path),
  });

const notRegular = (path: string, what: string, wanted = "a regular file"): VmError =>
  unreadable(path, `it is ${what}, not ${wanted}`);

/**
 * Opens a regular file for reading. Links are not followed, and a named pipe or a device is not waited for.
 * @throws a system error (ENOENT, EACCES …), VmError 74 for anything but a regular file
 */
export function openForReading(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (hasErrno(error, "ELOOP")) throw notRegular(path, "a symbolic link");
    if (hasErrno(error, "ENXIO")) throw notRegular(path, "a socket");
    throw error;
  }
  const stats = fstatSync(fd);
  if (stats.isFile()) return fd;
  closeSync(fd);
  throw notRegular(path, fileKindOf(stats));
}

/**
 * Opens a disk image, a kernel or the like that the user named: it may be a link, and a block device.
 * @throws a system error, VmError 74 for anything but a regular file or block device
 */
export function openNamed(path: string): number {
  const check = (stats: Stats): void => {
    if (!stats.isFile() && !stats.isBlockDevice())
      throw notRegular(path, fileKindOf(stats), "a regular file or block device");
  };
  // Opening a device may have an effect: it is checked before, too.
  check(statSync(path));
  const fd = openSync(path, O_RDONLY | O_NONBLOCK);
  try {
    check(fstatSync(fd));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Reads some bytes of a file; fewer than asked for at its end. */
export type ReadAt = (offset: number, length: number) => Buffer;

/** Calls a function with a reader of the file. @throws a system error if it cannot be read */
export function withFile<T>(path: string, use: (read: ReadAt) => T): T {
  const fd = openNamed(path);
  try {
    return use((offset, length) => {
      const bytes = Buffer.alloc(length);
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
    });
  } finally {
    closeSync(fd);
  }
}

/** No settings, list or record of the program comes near this: a larger one is a mistake, or an attack. */
export const MAX_SMALL_BYTES = 1 << 20;

/**
 * The bytes of a small file, or undefined when it is not there. Links are not followed.
 * @throws a system error, VmError 74 for anything but a regular file of at most `limit` bytes
 */
export function readSmallBytes(path: string, limit = MAX_SMALL_BYTES): Buffer | undefined {
  const fd = openIfThere(path);
  return fd === undefined ? undefined : readWhole(fd, path, limit);
}

/** `openForReading`, or undefined where nothing is there. */
function openIfThere(path: string): number | undefined {
  try {
    // Most settings files are not there, and an error takes longer to make than a system call.
    return lstatOf(path) && openForReading(path);
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}

/**
 * The bytes of a small file that the user or the system named: it may be a link.
 * @throws as `openNamed`; VmError 74 for more than `limit` bytes
 */
export const readNamed = (path: string, limit = MAX_SMALL_BYTES): Buffer =>
  readWhole(openNamed(path), path, limit);

/** Reads and closes. */
function readWhole(fd: number, path: string, limit: number): Buffer {
  try {
    const { size } = fstatSync(fd);
    // It may grow while it is read: no more than its limit and one byte.
    const bytes = Buffer.alloc(Math.min(size, limit) + 1);
    const length = readFully(fd, bytes, 0);
    if (length > limit || size > limit) throw unreadable(path, `it is larger than ${formatSize(limit)}`);
    return bytes.subarray(0, length);
  } finally {
    closeSync(fd);
  }
}

/** Reads until the buffer is full or the file has ended. @returns how many bytes there are */
function readFully(fd: number, bytes: Buffer, at: number): number {
  let length = 0;
  while (length < bytes.length) {
    const read = readSync(fd, bytes, length, bytes.length - length, at + length);
    if (read === 0) break;
    length += read;
  }
  return length;
}

/** The same as text; bytes that are no UTF-8 become replacement characters. */
export const readSmall = (path: string, limit?: number): string | undefined =>
  readSmallBytes(path, limit)?.toString();

/**
 * The end of a file that may have grown large (a log): whole lines where there is more than `limit`.
 * @returns undefined when it is not there @throws as `readSmallBytes`, but never for its size
 */
export function readTail(path: string, limit = MAX_SMALL_BYTES): string | undefined {
  const fd = openIfThere(path);
  if (fd === undefined) return undefined;
  try {
    const from = Math.max(0, fstatSync(fd).size - limit);
    const bytes = Buffer.alloc(limit);
    const text = bytes.toString("utf8", 0, readFully(fd, bytes, from));
    return from === 0 ? text : text.slice(text.indexOf("\n") + 1);
  } finally {
    closeSync(fd);
  }
}

/** The path itself, or 66 when it is not a file that can be read. */
export function requireReadableFile(path: string, what: string): string {
  const problem = readProblem(path);
  if (problem) throw new VmError("noInput", `${what} ${path} cannot be used: ${problem}`);
  return path;
}

function readProblem(path: string): string | undefined {
  try {
    const stats = statSync(path);
    if (stats.isDirectory()) return "it is a directory";
    if (!stats.isFile() && !stats.isBlockDevice()) return "it is neither a file nor a block device";
    accessSync(path, constants.R_OK);
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}
