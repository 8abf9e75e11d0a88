import { closeSync, constants, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { randomBytes } from "../lib/crypto.ts";
import { lstatOf } from "../lib/read-file.ts";
import { ownedByUs } from "../lib/trust.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { fileError, listDirectory, removeQuietly } from "../store/files.ts";
import { PARTIAL } from "../store/layout.ts";

const PREFIX = `${PARTIAL}get-`;
/** A new one of another process may not be locked yet. */
const NEW_MS = 10_000;

/** An empty directory beside files that are being created, private and locked; removed at the end. */
export interface PartialDirectory extends Disposable {
  path: string;
}

/** Creates one, and removes those of killed processes. @throws 73 without permission */
export function openPartial(directory: string): PartialDirectory {
  for (const name of listDirectory(directory)) if (name.startsWith(PREFIX)) removeLeft(join(directory, name));
  const path = join(directory, PREFIX + randomBytes(4).toString("hex"));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    throw fileError(`cannot write to ${directory}`, error);
  }
  const lock = lockPath(path);
  return {
    path,
    [Symbol.dispose]: () => {
      removeQuietly(path);
      if (lock !== undefined) closeSync(lock);
    },
  };
}

function removeLeft(path: string): void {
  const stats = lstatOf(path);
  if (!stats?.isDirectory() || !ownedByUs(stats) || Date.now() - stats.mtimeMs < NEW_MS) return;
  const lock = lockPath(path);
  if (lock === undefined) return;
  removeQuietly(path);
  closeSync(lock);
}

/** Undefined if another process holds it, or the filesystem cannot lock directories. */
function lockPath(path: string): number | undefined {
  const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;
  let fd: number | undefined;
  try {
    fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (flock(fd, LOCK_EX | LOCK_NB)) return fd;
  } catch {
    // As below.
  }
  if (fd !== undefined) closeSync(fd);
  return undefined;
}
