/**
 * Snapshots that are read without the VM's lock, so that it can run, and be backed up, meanwhile. Their directories are
 * locked (flock(2)): shared by who reads, exclusively by who removes, replaces or moves one, for that moment.
 */
import { closeSync, constants, existsSync, fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import { beginStep } from "../lib/activity.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { lstatOf } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import { flock, LOCK_EX, LOCK_NB, LOCK_SH } from "../process/libc.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { listDirectory } from "./files.ts";
import { HOST } from "./layout.ts";
import { describeLockHolder, locksDirectories } from "./lock.ts";
import { chainOf } from "./snapshot-intact.ts";
import { findSnapshot, type Snapshot } from "./snapshots.ts";

const WAIT_MS = 3000;
const RETRY_MS = 40;

type LockedPlace = Pick<Snapshot, "name" | "dir">;

/** A snapshot that stays as it is, with its parents, until this is disposed. */
export interface ReadSnapshot extends Disposable {
  readonly snapshot: Snapshot;
}

/** Can snapshots be locked where those of this VM are? If not, the VM's lock is needed to read them. */
export const canLockSnapshots = (hostdir: string): boolean => {
  const backups = join(hostdir, HOST.backups);
  // A symlink to nowhere is reported by who looks for a snapshot there.
  return locksDirectories(existsSync(backups) ? backups : hostdir);
};

const openPlace = ({ dir }: LockedPlace): number => {
  const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;
  return openSync(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
};

/** Undefined if another process has locked it, or it is no longer there. */
function tryLock(place: LockedPlace, operation: number): number | undefined {
  const fd = openPlace(place);
  try {
    if (flock(fd, operation | LOCK_NB) && lstatOf(place.dir)?.ino === fstatSync(fd).ino) return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return undefined;
}

/**
 * Begins to read a snapshot and its parents.
 * @throws 66 if it does not exist, 75 while it is being replaced or removed
 */
export async function beginReading(hostdir: string, name: string | undefined): Promise<ReadSnapshot> {
  const deadline = Date.now() + WAIT_MS;
  using _step = beginStep(() => "waiting for a command that changes the snapshots");
  for (;;) {
    const found = tryRead(hostdir, name);
    if (found) return found;
    throwIfInterrupted();
    if (Date.now() >= deadline)
      throw new VmError("busy", `cannot read ${plain(name ?? "the snapshot")}: it is being changed`, {
        hint: "run the command again when that has finished",
      });
    await Bun.sleep(RETRY_MS);
  }
}

/** The same, where snapshots cannot be locked without that: nothing keeps others from changing it there. */
export const beginReadingIfPossible = async (
  hostdir: string,
  name: string | undefined,
): Promise<ReadSnapshot> =>
  canLockSnapshots(hostdir)
    ? beginReading(hostdir, name)
    : { snapshot: findSnapshot(hostdir, name), [Symbol.dispose]: () => {} };

function tryRead(hostdir: string, name: string | undefined): ReadSnapshot | undefined {
  const fds: number[] = [];
  const dispose = (): void => fds.splice(0).forEach((fd) => closeSync(fd));
  const lock = (place: LockedPlace): boolean => {
    const fd = tryLock(place, LOCK_SH);
    if (fd !== undefined) fds.push(fd);
    return fd !== undefined;
  };
  try {
    // What is locked has this parent, and that one cannot be merged into it or removed any more.
    const locked = findSnapshot(hostdir, name);
    if (lock(locked)) {
      const snapshot = findSnapshot(hostdir, locked.name);
      const [, ...parents] = chainOf(hostdir, snapshot);
      if (parents.every(lock)) return { snapshot, [Symbol.dispose]: dispose };
    }
  } catch (error) {
    dispose();
    if (!hasErrno(error, "ENOENT")) throw error;
  }
  dispose();
  return undefined;
}

/** Who reads a snapshot: `vm snapshots get S1 … (pid 123)`; undefined if no process does, or if that cannot be known. */
export function findReader(place: LockedPlace): string | undefined {
  let fd: number;
  try {
    fd = openPlace(place);
  } catch {
    return undefined;
  }
  try {
    if (flock(fd, LOCK_EX | LOCK_NB)) return undefined;
    return describeLockHolder(fstatSync(fd).ino) ?? "another process";
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

/**
 * Keeps others from reading snapshots that are about to change; under the VM's lock.
 * @param cannot start of the error message: `cannot remove snapshots`
 * @throws 75 naming the one that is being read, and by whom
 */
export function lockUnread(places: readonly LockedPlace[], cannot: string): Disposable {
  const fds: number[] = [];
  const dispose = (): void => fds.splice(0).forEach((fd) => closeSync(fd));
  for (const place of places) {
    const reader = findReader(place);
    if (reader !== undefined) {
      dispose();
      throw new VmError("busy", `${cannot}: ${plain(place.name)} is being read by ${reader}`, {
        hint: "run the command again when that has finished",
      });
    }
    try {
      const fd = tryLock(place, LOCK_EX);
      if (fd !== undefined) fds.push(fd);
    } catch {
      // Unreadable, or on a filesystem that cannot lock it: it is read under the VM's lock.
    }
  }
  return { [Symbol.dispose]: dispose };
}

/** The same for everything in `backups`. @throws 75 */
export function lockAllUnread(hostdir: string, cannot: string): Disposable {
  const backups = join(hostdir, HOST.backups);
  const names = lstatOf(backups)?.isDirectory() ? listDirectory(backups) : [];
  const places = names.map((name) => ({ name, dir: join(backups, name) }));
  return lockUnread(
    places.filter(({ name, dir }) => !name.startsWith(".") && lstatOf(dir)?.isDirectory()),
    cannot,
  );
}
