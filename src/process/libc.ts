import type { Pointer } from "bun:ffi";
import type { LocalTime } from "../lib/time.ts";
import { ffi, loadFunctions } from "./c-library.ts";
import { O_CLOEXEC } from "./open-flags.ts";

/** flock(2) operations. */
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;

const SYMBOLS = {
  flock: { args: ["i32", "i32"], returns: "i32" },
  isatty: { args: ["i32"], returns: "i32" },
  pipe2: { args: ["ptr", "i32"], returns: "i32" },
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "ptr"], returns: "i32" },
  connect: { args: ["i32", "ptr", "u32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  ioctl: { args: ["i32", "u64", "ptr"], returns: "i32" },
  getpriority: { args: ["i32", "u32"], returns: "i32" },
  prlimit: { args: ["i32", "i32", "ptr", "ptr"], returns: "i32" },
  setpriority: { args: ["i32", "u32", "i32"], returns: "i32" },
  localtime_r: { args: ["ptr", "ptr"], returns: "ptr" },
  mkfifo: { args: ["ptr", "u32"], returns: "i32" },
  socketpair: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
  sendmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
  recvmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
  syscall: {
    args: ["i64", "i32", "ptr", "i32", "ptr", "u32"],
    returns: "i64",
  },
  __errno_location: { args: [], returns: "ptr" },
} as const;

type Functions = ReturnType<typeof loadFunctions<typeof SYMBOLS>>;
type Name = keyof Functions;
type Call = (...args: unknown[]) => unknown;

const loaded = new Map<Name, Call>();

/** Looks a function up, and with it the place of errno, which that would overwrite after the call. */
function load(name: Name): Call {
  const wanted: Name[] = name === "__errno_location" ? [name] : [name, "__errno_location"];
  const found = loadFunctions(Object.fromEntries(wanted.map((one) => [one, SYMBOLS[one]])));
  for (const one of wanted) loaded.set(one, found[one] as unknown as Call);
  return loaded.get(name)!;
}

/** Each is looked up with its first call: all of them take 1 ms. */
const functions = Object.fromEntries(
  (Object.keys(SYMBOLS) as Name[]).map((name) => [
    name,
    (...args: unknown[]) => (loaded.get(name) ?? load(name))(...args),
  ]),
) as unknown as Functions;

/** For the modules of this folder. */
export const libc = (): Functions => functions;

const EINTR = 4;
const EAGAIN = 11;

/** The error of the C library's last call, in the form of Node's system errors. */
export function systemError(call: string): NodeJS.ErrnoException {
  const errno = ffi().read.i32(libc().__errno_location() as Pointer);
  // Loaded on first use: loading is slow, and errors are rare.
  const { getSystemErrorMap } = process.getBuiltinModule("node:util");
  const [code, text] = getSystemErrorMap().get(-errno) ?? [`E${errno}`, `error ${errno}`];
  return Object.assign(new Error(`${code}: ${text}, ${call}`), { errno: -errno, code, syscall: call });
}

/**
 * flock(2): true if the lock was taken, false if another open file description holds it. The kernel releases it when the
 * descriptor is closed.
 * @throws a system error if the filesystem cannot lock (NFS without its lock service: ENOLCK)
 */
export function flock(fd: number, operation: number): boolean {
  if (libc().flock(fd, operation) === 0) return true;
  const error = systemError("flock");
  if (error.errno === -EAGAIN || error.errno === -EINTR) return false;
  throw error;
}

/** ioctl_ficlone(2), from linux/fs.h; on POWER it is another number, and fails as on other filesystems. */
const FICLONE = 0x40049409;

/** Makes an empty file a copy of an open one, of the same blocks. @returns false if the filesystem cannot */
export const shareBlocks = (from: number, to: number): boolean =>
  libc().ioctl(to, FICLONE, from as Pointer) === 0;

/** isatty(3): is this descriptor a terminal? */
export const isatty = (fd: number): boolean => libc().isatty(fd) === 1;

/** pipe2(2) with O_CLOEXEC: `[read end, write end]`, for children; the caller closes them. */
export function pipe(): [number, number] {
  const fds = new Int32Array(2);
  if (libc().pipe2(ffi().ptr(fds), O_CLOEXEC) !== 0) throw new Error("pipe2 failed: too many open files?");
  return [fds[0]!, fds[1]!];
}

export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;

/** sun_path (unix(7)). */
const SUN_PATH_BYTES = 108;

/** sockaddr_un of a path of at most 107 bytes (unix(7)). */
export function unixAddress(path: string): Buffer {
  const address = Buffer.alloc(2 + SUN_PATH_BYTES);
  address.writeUInt16LE(AF_UNIX);
  address.write(path, 2);
  return address;
}

/**
 * Does a process listen on this Unix socket? A full queue (EAGAIN) means yes; Bun's connect reports it as ECONNREFUSED.
 * @param path at most 107 bytes
 */
export function isUnixSocketAlive(path: string): boolean {
  const { socket, connect, close, __errno_location } = libc();
  const address = unixAddress(path);
  const fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | O_CLOEXEC, 0);
  if (fd < 0) throw new Error("socket failed: too many open files?");
  try {
    if (connect(fd, ffi().ptr(address), address.length) === 0) return true;
    return ffi().read.i32(__errno_location() as Pointer) === EAGAIN;
  } finally {
    close(fd);
  }
}

const F_OFD_GETLK = 36;
const F_WRLCK = 1;
const F_UNLCK = 2;
/** struct flock with 64-bit offsets (fcntl(2)): type, whence, start, length, pid. */
const FLOCK_BYTES = 32;

/** Does another open file description hold a lock, of either kind, on these bytes of an open file? */
export function isRangeLocked(fd: number, start: number, length: number): boolean {
  const lock = Buffer.alloc(FLOCK_BYTES);
  lock.writeInt16LE(F_WRLCK, 0);
  lock.writeBigInt64LE(BigInt(start), 8);
  lock.writeBigInt64LE(BigInt(length), 16);
  return libc().fcntl(fd, F_OFD_GETLK, ffi().ptr(lock)) === 0 && lock.readInt16LE(0) !== F_UNLCK;
}

const TUNSETIFF = 0x400454ca;
/** struct ifreq: a name of 16 bytes, and the flags. */
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

/** Makes an open /dev/net/tun a tap device. @param pattern of its name: `vm%d` @returns its name */
export function setInterface(fd: number, pattern: string): string {
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(pattern, "latin1");
  request.writeUInt16LE(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, IFNAMSIZ);
  if (libc().ioctl(fd, TUNSETIFF, ffi().ptr(request)) !== 0) throw systemError("ioctl TUNSETIFF");
  return request.toString("latin1", 0, request.indexOf(0));
}

/** Creates a named pipe (0600). @throws a system error */
export function makePipe(path: string): void {
  if (libc().mkfifo(ffi().ptr(Buffer.from(`${path}\0`)), 0o600) !== 0) throw systemError("mkfifo");
}

/** io_uring_setup(2): the same number on all architectures. */
const SYS_IO_URING_SETUP = 425;
/** struct io_uring_params. */
const IO_URING_PARAMS_BYTES = 120;
/** As many entries as qemu uses (block/io_uring.c). */
const IO_URING_ENTRIES = 128;

/** Why this process cannot use io_uring; undefined if it can. */
export function findIoUringProblem(): string | undefined {
  const params = Buffer.alloc(IO_URING_PARAMS_BYTES);
  const fd = Number(
    libc().syscall(SYS_IO_URING_SETUP, IO_URING_ENTRIES, ffi().ptr(params), 0, ffi().ptr(params), 0),
  );
  if (fd >= 0) {
    libc().close(fd);
    return undefined;
  }
  const { code } = systemError("io_uring_setup");
  if (code === "ENOSYS") return "the kernel has no io_uring";
  if (code === "EPERM" || code === "EACCES")
    return "the kernel forbids io_uring (kernel.io_uring_disabled, or a seccomp filter)";
  return `io_uring_setup failed: ${code}`;
}

const PRIO_PROCESS = 0;
const PRIO_PGRP = 1;
const MAX_NICENESS = 19;
/** As nice(1). */
const LOWER_BY = 10;
/** ioprio_set(2): the C library has no function for it. */
const SYS_IOPRIO_SET = process.arch === "arm64" ? 30 : 251;
const IOPRIO_WHO_PGRP = 2;
const IOPRIO_IDLE = 3 << 13;

/** Gives a process group a lower CPU priority than this process has, and idle I/O priority. Best effort. */
export function lowerPriority(group: number): void {
  const { getpriority, setpriority, syscall } = libc();
  setpriority(PRIO_PGRP, group, Math.min(getpriority(PRIO_PROCESS, 0) + LOWER_BY, MAX_NICENESS));
  syscall(SYS_IOPRIO_SET, IOPRIO_WHO_PGRP, group as Pointer, IOPRIO_IDLE, null, 0);
}

/** Numbers of x86-64 and arm64 (asm-generic/resource.h). */
const RESOURCES = { core: 4, nproc: 6, msgqueue: 12 } as const;

export type ResourceLimits = Partial<Record<keyof typeof RESOURCES, number>>;

/** Sets limits of a process, and of what it starts, that only root can raise again (prlimit(2)). Best effort. */
export function limitResources(pid: number, limits: ResourceLimits): void {
  for (const [name, limit] of Object.entries(limits)) {
    const both = BigUint64Array.of(BigInt(limit), BigInt(limit));
    libc().prlimit(pid, RESOURCES[name as keyof ResourceLimits], ffi().ptr(both), null);
  }
}

/** renameat2(2): older C libraries have no function for it. */
const SYS_RENAMEAT2 = process.arch === "arm64" ? 276 : 316;
const AT_FDCWD = -100;
const RENAME_EXCHANGE = 2;

/** Errors of a filesystem, kernel or sandbox without RENAME_EXCHANGE. */
const UNSUPPORTED = new Set(["EINVAL", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EPERM"]);

/**
 * Exchanges two names atomically.
 * @returns false if the filesystem cannot
 * @throws any other system error
 */
export function exchange(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => Buffer.from(`${path}\0`)) as [Buffer, Buffer];
  if (
    Number(libc().syscall(SYS_RENAMEAT2, AT_FDCWD, ffi().ptr(a), AT_FDCWD, ffi().ptr(b), RENAME_EXCHANGE)) ===
    0
  )
    return true;
  const error = systemError("renameat2");
  if (UNSUPPORTED.has(error.code!)) return false;
  throw error;
}

/** struct tm begins with nine int fields; after them C libraries differ. */
const TM_BYTES = 64;

/** localtime_r(3): a time in this host's zone. A Date loads the zones of all the world for that, which takes 13 ms. */
export function localTime(date: Date): LocalTime {
  const seconds = new BigInt64Array([BigInt(Math.floor(date.getTime() / 1000))]);
  const fields = new Int32Array(TM_BYTES / 4);
  libc().localtime_r(ffi().ptr(seconds), ffi().ptr(fields));
  const [second = 0, minute = 0, hour = 0, day = 0, month = 0, year = 0] = fields;
  return [year + 1900, month + 1, day, hour, minute, second];
}
