/**
 * Temporary directories in TMPDIR of commands that run on without the VM's lock. Each is locked with flock(2) while its
 * command runs; the next command that changes the VM removes what a killed one has left, mounts included.
 */
import { closeSync, constants, mkdirSync, openSync, readlinkSync, realpathSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import { randomBytes } from "../lib/crypto.ts";
import { lstatOf } from "../lib/read-file.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { endLeftMachines } from "./abandoned.ts";
import { listDirectory, removeQuietly } from "./files.ts";
import { WORK } from "./layout.ts";
import { isOwnWork, TEMPORARY, workPrefix } from "./working-files.ts";

/** In one of these: a symlink to where `snapshots mount` mounts. */
export const MOUNTED = "mounted";

export interface Temporary extends Disposable {
  /** Absolute, symlinks resolved; mode 0700. */
  readonly dir: string;
  /** Its lock: a process that inherits it keeps the directory. */
  readonly fd: number;
  /** Leaves it to the processes that have inherited its lock. */
  release(): void;
}

/** Removes those of this VM that killed commands have left, too. @throws 73 if TMPDIR cannot be written */
export function makeTemporary(hostdir: string, tmpdir: string): Temporary {
  removeLeftTemporaries(hostdir, tmpdir);
  for (;;) {
    let dir: string | undefined;
    let fd: number;
    try {
      const name = `${workPrefix(hostdir)}${randomBytes(4).toString("hex")}${TEMPORARY}`;
      dir = join(realpathSync(tmpdir), name);
      mkdirSync(dir, { mode: 0o700 });
      symlinkSync(hostdir, join(dir, WORK.hostLink));
      fd = openDirectory(dir);
    } catch (error) {
      // Another command has taken it for one that was left.
      if (dir !== undefined && hasErrno(error, "ENOENT")) continue;
      if (dir !== undefined) removeQuietly(dir);
      throw new VmError("cannotCreate", `cannot create a directory in ${tmpdir}: ${reasonOf(error)}`, {
        cause: error,
        hint: "set TMPDIR to a directory of yours with space for the disks",
      });
    }
    if (!flock(fd, LOCK_EX | LOCK_NB) || !lstatOf(dir)) {
      closeSync(fd);
      continue;
    }
    const made = dir;
    const dispose = (): void => {
      removeTree(made);
      closeSync(fd);
    };
    return { dir, fd, release: () => closeSync(fd), [Symbol.dispose]: dispose };
  }
}

const openDirectory = (path: string): number =>
  openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);

/** What cannot be removed is left for the next command. */
function removeLeftTemporaries(hostdir: string, tmpdir: string): void {
  const prefix = workPrefix(hostdir);
  try {
    const parent = realpathSync(tmpdir);
    for (const name of listDirectory(parent)) {
      const path = join(parent, name);
      if (name.startsWith(prefix) && name.endsWith(TEMPORARY) && isOwnWork(path, hostdir))
        removeLeftTemporary(path);
    }
  } catch {}
}

/** Removes one that no process has locked. @param path of a directory of this user */
export function removeLeftTemporary(path: string): void {
  const fd = openDirectory(path);
  try {
    if (!flock(fd, LOCK_EX | LOCK_NB)) return;
    endLeftMachines(path);
    removeTree(realpathSync(path));
  } finally {
    closeSync(fd);
  }
}

/** Does a process have it locked? */
export function isTemporaryUsed(path: string): boolean {
  const fd = openDirectory(path);
  try {
    return !flock(fd, LOCK_EX | LOCK_NB);
  } finally {
    closeSync(fd);
  }
}

/** Its mounts first: through one that is left, `remove` would read another filesystem. */
export function removeTree(dir: string): void {
  const { listDeadMounts, listFuseMounts, unmountFuse } =
    require("../process/mounts.ts") as typeof import("../process/mounts.ts");
  const mounted = join(dir, MOUNTED);
  if (lstatOf(mounted)?.isSymbolicLink()) listDeadMounts(readlinkSync(mounted)).forEach(unmountFuse);
  if (listFuseMounts(dir).every(unmountFuse)) removeQuietly(dir);
}
