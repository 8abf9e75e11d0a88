/** Temporary directories that a process locks while it uses them, and what killed processes have left of them. */
import { closeSync, constants, openSync, realpathSync, type Stats } from "node:fs";
import { join } from "node:path";
import { lstatOf } from "../lib/read-file.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { listDirectory, removeQuietly } from "./files.ts";

/** A new one of another process may not be locked yet. */
const NEW_MS = 10_000;

/** Undefined if another process holds it, or the filesystem cannot lock directories. */
export function lockTemporary(path: string): number | undefined {
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

/** Removes those in a directory that no process has locked. @param isOurs whether one may be removed */
export function removeAbandoned(
  directory: string,
  prefix: string,
  isOurs: (stats: Stats) => boolean = () => true,
): void {
  for (const name of listDirectory(directory)) {
    if (!name.startsWith(prefix)) continue;
    const path = join(directory, name);
    const stats = lstatOf(path);
    if (!stats || !isOurs(stats) || Date.now() - stats.mtimeMs < NEW_MS) continue;
    const lock = lockTemporary(path);
    if (lock === undefined) continue;
    endLeftMachines(path);
    removeQuietly(path);
    closeSync(lock);
  }
}

/**
 * Kills each qemu whose working directory one of these is. The signal that ends a qemu with the program that has started it
 * comes too early for one that does not handle it yet, and is the first process of a namespace (pid_namespaces(7)).
 */
export function endLeftMachines(path: string): void {
  const { findUsers } = require("../process/holders.ts") as typeof import("../process/holders.ts");
  for (const { pid } of findUsers(new Set(), realpathSync(path), "qemu-system"))
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has exited.
    }
}
