import { closeSync, constants, openSync, readFileSync, statfsSync, fstatSync } from "node:fs";
import { join } from "node:path";
import { beginStep } from "../lib/activity.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { lstatOf } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { fileError } from "./files.ts";
import { HOST } from "./layout.ts";

const WAIT_MS = 3000;
const RETRY_MS = 40;

/** Filesystems (statfs(2) magic) where a directory cannot be locked: NFS, CIFS, SMB2. */
const REMOTE = [0x6969, 0xff534d42, 0xfe534d42];

/** Serialises changes to a VM: held until disposed, or released by the kernel with the process. */
export interface VmLock extends Disposable {
  readonly hostdir: string;
}

/** mount(2) and nfs(5): an NFS server without its lock service answers ENOLCK. */
const NO_LOCKS =
  "move the VM to a local filesystem: --hostdir=DIR; on NFS start the lock service (rpc.statd, nfslock), or mount with local_lock=flock if only this host uses it";

/** Can processes on all hosts lock a directory there? */
export const locksDirectories = (path: string): boolean => !REMOTE.includes(statfsSync(path).type);

/** Opens HOSTDIR itself, so that no lock file is left behind; a file in it where that cannot be locked. */
function openLock(hostdir: string): number {
  const { O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;
  return locksDirectories(hostdir)
    ? openSync(hostdir, O_RDONLY | O_DIRECTORY)
    : openSync(join(hostdir, HOST.lock), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
}

/**
 * Takes the VM's lock, waiting briefly.
 * @param command what the lock is taken for, for the error message
 * @param take flock(2)
 * @throws 75 naming the holder, 74 if the filesystem cannot lock
 */
export const lockVm = (hostdir: string, command: string, waitMs = WAIT_MS, take = flock): Promise<VmLock> =>
  lockDirectory(hostdir, { command, waitMs, busy: "the VM is locked by another process", take });

/** What a directory is locked for. */
interface LockOptions {
  command: string;
  waitMs: number;
  /** What is locked, for the error message. */
  busy: string;
  /** flock(2) */
  take?: typeof flock;
}

/** Takes the lock of any directory. @throws 75 naming the holder, 74 if the filesystem cannot lock */
export async function lockDirectory(
  hostdir: string,
  { command, waitMs, busy, take = flock }: LockOptions,
): Promise<VmLock> {
  let fd: number;
  try {
    fd = openLock(hostdir);
  } catch (error) {
    throw fileError(`cannot lock ${hostdir}`, error);
  }
  const tryLock = (): boolean => {
    try {
      return take(fd, LOCK_EX | LOCK_NB);
    } catch (error) {
      throw new VmError("io", `cannot lock ${hostdir}: ${reasonOf(error)}`, { cause: error, hint: NO_LOCKS });
    }
  };
  const deadline = Date.now() + waitMs;
  const holder = (): string | undefined => describeLockHolder(fstatSync(fd).ino);
  using _step = beginStep(
    () =>
      `waiting at most ${Math.round(waitMs / 1000)} s for the lock of ${hostdir}, held by ${holder() ?? "an unknown process"}`,
  );
  try {
    // flock(2) offers no event; a blocking call would defer signals.
    while (!tryLock()) {
      throwIfInterrupted();
      if (Date.now() >= deadline)
        throw new VmError("busy", `cannot ${command}: ${busy}: ${holder() ?? "holder unknown"}`, {
          hint: "run the command again when that has finished",
        });
      await Bun.sleep(RETRY_MS);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { hostdir, [Symbol.dispose]: () => closeSync(fd) };
}

/** Does any process have the VM's lock, as far as this user can see? */
export function isLocked(hostdir: string): boolean {
  try {
    const inode = lstatOf(locksDirectories(hostdir) ? hostdir : join(hostdir, HOST.lock))?.ino;
    return inode !== undefined && findLockHolder(inode) !== undefined;
  } catch {
    return false;
  }
}

/** Does a process have the VM's lock? */
export function hasLock(hostdir: string, pid: number): boolean {
  const path = locksDirectories(hostdir) ? hostdir : join(hostdir, HOST.lock);
  const inode = lstatOf(path)?.ino;
  return inode !== undefined && findLockHolder(inode) === String(pid);
}

/** Pid of the holder of the lock on this inode, from /proc/locks (proc(5)). @throws a system error */
function findLockHolder(inode: number): string | undefined {
  const line = readFileSync("/proc/locks", "utf8")
    .split("\n")
    .find((item) => item.includes(" FLOCK ") && !item.includes("->") && item.includes(`:${inode} `));
  return line?.trim().split(/\s+/)[4];
}

/** The holder of the lock on this inode: `vm backup (pid 123)`; undefined for one that is not visible. */
export function describeLockHolder(inode: number): string | undefined {
  try {
    const pid = findLockHolder(inode);
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").join(" ");
    return `${plain(words.trim())} (pid ${pid})`;
  } catch {
    return undefined;
  }
}
