import {
  closeSync,
  constants,
  fsync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
  type Stats,
} from "node:fs";
import { dirname, join } from "node:path";
import { hasErrno, isNoRoom, noRoomError, reasonOf, VmError } from "../lib/errors.ts";
import { formatSize } from "../lib/size.ts";
import { openForReading } from "../lib/read-file.ts";
import { PARTIAL } from "./layout.ts";
import { remove } from "./remove.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;

/** Names in a directory; none when it is not there. */
export function listDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw error;
  }
}

/** Directories in a directory, links to some not among them. */
export function listDirectories(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw error;
  }
}

/** A new file that only the owner may read and write; never follows a link, never overwrites. */
export const createFile = (path: string): number =>
  openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);

/** Makes renames and new names in a directory durable. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, O_RDONLY | O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** fsync(2), while other work goes on. */
export const syncDescriptor = (fd: number): Promise<void> =>
  new Promise((resolve, reject) => fsync(fd, (error) => (error ? reject(error) : resolve())));

/** Makes what another program has written durable. May take seconds: nothing else waits for it. */
export async function syncFile(path: string): Promise<void> {
  const fd = openForReading(path);
  try {
    await syncDescriptor(fd);
  } finally {
    closeSync(fd);
  }
}

/** A file that another program writes. */
export interface WrittenFile extends Disposable {
  /** Makes it durable. @throws the first error of writing it back since it was opened here */
  sync(): Promise<void>;
}

/**
 * Opens a file before another program writes it. Linux tells an error of writeback once to each descriptor that was open
 * then (fsync(2)): a later one would not hear of what the other program's own sync has met.
 */
export function followWrites(path: string): WrittenFile {
  const fd = openForReading(path);
  return { sync: () => syncDescriptor(fd), [Symbol.dispose]: () => closeSync(fd) };
}

/** Writes a new file and syncs it; leaves nothing when that fails. */
export function writeNew(path: string, content: string | Buffer): void {
  const fd = createFile(path);
  try {
    writeFileSync(fd, content);
    fsyncSync(fd);
  } catch (error) {
    removeQuietly(path);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/**
 * Replaces a file in one step: write beside, sync, rename.
 * @param directory where the new one is written: in the same file system, and cleared of what a kill leaves
 */
export function replaceFile(path: string, content: string | Buffer, directory = dirname(path)): void {
  const beside = join(directory, `${PARTIAL}${process.pid}`);
  rmSync(beside, { force: true });
  try {
    writeNew(beside, content);
    renameSync(beside, path);
  } catch (error) {
    removeQuietly(beside);
    throw error;
  }
  syncDirectory(dirname(path));
}

/** Points a symbolic link at `target` in one step, whether it exists or not: when this throws, it has not. */
export function replaceSymlink(path: string, target: string): void {
  const beside = join(dirname(path), `${PARTIAL}${process.pid}`);
  rmSync(beside, { force: true });
  symlinkSync(target, beside);
  try {
    renameSync(beside, path);
  } catch (error) {
    removeQuietly(beside);
    throw error;
  }
}

/** The same while something else is being reported; what stays is removed by the next command. */
export function removeQuietly(path: string): void {
  try {
    remove(path);
  } catch {
    // See above.
  }
}

/** Bytes free for the caller in the file system that holds `path`. */
export function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** Bytes a file occupies (holes do not count). */
export const allocatedBytes = (stats: Stats): number => stats.blocks * 512;

/** What makes room. Snapshots take none in TMPDIR, or it is not known. */
const MAKE_ROOM = {
  snapshots: "free some room there, or remove old snapshots",
  tmpdir: "free some room there, or name a larger directory in TMPDIR",
};

/**
 * Refuses when `directory` has no room for `needed` bytes, or is not there.
 * @param holds what else is in it, which the hint goes by
 * @throws 73 naming it
 */
export function requireRoom(
  directory: string,
  needed: number,
  what: string,
  holds: keyof typeof MAKE_ROOM,
): void {
  let free: number;
  try {
    free = freeBytes(directory);
  } catch (error) {
    throw new VmError("cannotCreate", `cannot ${what}: ${directory}: ${reasonOf(error)}`, {
      cause: error,
      hint: "make that directory, or name another one; working files are made in TMPDIR, else in /tmp",
    });
  }
  if (free >= needed) return;
  throw new VmError(
    "cannotCreate",
    `cannot ${what}: no room in ${directory}: about ${formatSize(needed)} needed, ${formatSize(free)} free`,
    { hint: MAKE_ROOM[holds] },
  );
}

/**
 * Turns a failed system call into an error for the user: no room is 73, anything else 74.
 * @param noRoom the hint where there is no room; what was done before is the caller's to know and to say
 */
export function fileError(what: string, error: unknown, noRoom?: string): VmError {
  if (error instanceof VmError) return error;
  if (isNoRoom(error)) return noRoomError(what, { hint: noRoom, cause: error });
  if (hasErrno(error, "EACCES", "EPERM", "EROFS")) {
    // Of a link or a rename, the name that was to be made.
    const where = (error as { dest?: string }).dest ?? error.path;
    const brief = `${reasonOf(error)}${where ? ` (${where})` : ""}`;
    return new VmError("cannotCreate", `${what}: ${brief}`, {
      cause: error,
      brief,
      hint: "the directory and what is in it must belong to you and be writable",
    });
  }
  const brief = reasonOf(error);
  return new VmError("io", `${what}: ${brief}`, { cause: error, brief });
}

const FINISHED_LATER = "the next command of this VM does it; look at the disk if this comes again";

/**
 * Runs what follows the point of no return. A failure there does not undo the change, and must not say so.
 * @param hint what to do then
 * @throws 74 (73 for want of room) saying that the change is done but not finished
 */
export function afterCommit(done: string, finish: () => void, hint = FINISHED_LATER): void {
  try {
    finish();
  } catch (error) {
    const message = `${done}, but the rest could not be done: ${reasonOf(error)}`;
    throw new VmError(isNoRoom(error) ? "cannotCreate" : "io", message, { cause: error, hint });
  }
}
