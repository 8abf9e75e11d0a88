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
import { hasErrno, isNoSpace, noSpaceError, reasonOf, VmError } from "../lib/errors.ts";
import { formatSize } from "../lib/size.ts";
import { openForReading } from "../lib/read-file.ts";
import { PARTIAL } from "./layout.ts";
import { remove } from "./remove.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;

/** Names in a directory; none if it does not exist. */
export function listDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR")) return [];
    throw error;
  }
}

/** Subdirectories of a directory, without symlinks. */
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

/** Creates a file with mode 0600; never follows a symlink, never overwrites. */
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

/** fsync(2) in the background. */
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

/** Writes and syncs a new file; removes it if that fails. */
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

/** Replaces a file that is of no use after a power cut: nothing is synced. */
export function replaceVolatile(path: string, content: string | Buffer): void {
  rmSync(path, { force: true });
  const fd = createFile(path);
  try {
    writeFileSync(fd, content);
  } finally {
    closeSync(fd);
  }
}

/**
 * Replaces a file atomically: write to a temporary file, sync, rename.
 * @param directory of the temporary file: on the same filesystem, and cleaned up after a kill
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

/** Creates or replaces a symlink atomically. If this throws, it is unchanged. */
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

/** The same, ignoring errors, while another error is reported; the next command removes what is left. */
export function removeQuietly(path: string): void {
  try {
    remove(path);
  } catch {
    // See above.
  }
}

/** Bytes available to the caller on the filesystem of `path`. */
export function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** Allocated bytes of a file (without holes). */
export const allocatedBytes = (stats: Stats): number => stats.blocks * 512;

/** How to free space. In TMPDIR there are no snapshots; otherwise that is unknown. */
const SPACE_HINT = {
  snapshots: "free some space there, or remove old snapshots",
  tmpdir: "free some space there, or set TMPDIR to a larger directory",
  destination: "free some space there, or name a directory on another filesystem",
};

/**
 * Requires `needed` bytes of free space in `directory`.
 * @param holds what else is in it, for the hint
 * @throws 73 if there is not enough space, or no such directory
 */
export function requireSpace(
  directory: string,
  needed: number,
  what: string,
  holds: keyof typeof SPACE_HINT,
): void {
  let free: number;
  try {
    free = freeBytes(directory);
  } catch (error) {
    throw new VmError("cannotCreate", `cannot ${what}: ${directory}: ${reasonOf(error)}`, {
      cause: error,
      hint: "create that directory, or set TMPDIR to another one",
    });
  }
  if (free >= needed) return;
  throw new VmError(
    "cannotCreate",
    `cannot ${what}: no space in ${directory}: about ${formatSize(needed)} needed, ${formatSize(free)} free`,
    { hint: SPACE_HINT[holds] },
  );
}

/**
 * Turns a failed system call into an error for the user: 73 for a full disk or missing permission, otherwise 74.
 * @param noSpace hint for a full disk; only the caller knows what was done before
 */
export function fileError(what: string, error: unknown, noSpace?: string): VmError {
  if (error instanceof VmError) return error;
  if (isNoSpace(error)) return noSpaceError(what, { hint: noSpace, cause: error });
  if (hasErrno(error, "EACCES", "EPERM", "EROFS")) {
    // Of a symlink or rename: the destination.
    const where = (error as { dest?: string }).dest ?? error.path;
    const brief = `${reasonOf(error)}${where ? ` (${where})` : ""}`;
    return new VmError("cannotCreate", `${what}: ${brief}`, {
      cause: error,
      brief,
      hint: hasErrno(error, "EROFS")
        ? "use a directory on another filesystem (--hostdir, TMPDIR), or make this one writable: mount -o remount,rw MOUNTPOINT"
        : "act as the owner, or make the directory and its contents yours and writable: chown, chmod u+w",
    });
  }
  const brief = reasonOf(error);
  return new VmError("io", `${what}: ${brief}`, { cause: error, brief });
}

const FINISHED_LATER = "run any command that changes this VM to complete it; check the disk if this repeats";

/**
 * Runs the steps after the commit of a change. A failure there does not undo the change.
 * @param hint what to do on failure
 * @throws 74 (73 for a full disk): the change is committed but not completed
 */
export function afterCommit(done: string, finish: () => void, hint = FINISHED_LATER): void {
  try {
    finish();
  } catch (error) {
    const message = `${done}, but the rest failed: ${reasonOf(error)}`;
    throw new VmError(isNoSpace(error) ? "cannotCreate" : "io", message, { cause: error, hint });
  }
}
