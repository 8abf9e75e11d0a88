import { dlopen, FFIType, ptr } from "bun:ffi";

/** flock(2) operations. */
export const LOCK_EX = 2;
export const LOCK_NB = 4;

const O_CLOEXEC = 0o2000000;

/** glibc, then musl under the names its distributions use. */
const NAMES = ["libc.so.6", `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`, "libc.so"];

const SYMBOLS = {
  flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  pipe2: { args: [FFIType.ptr, FFIType.i32], returns: FFIType.i32 },
} as const;

function load() {
  let last: unknown;
  for (const name of NAMES) {
    try {
      return dlopen(name, SYMBOLS).symbols;
    } catch (error) {
      last = error;
    }
  }
  throw new Error("cannot load the C library", { cause: last });
}

let symbols: ReturnType<typeof load> | undefined;
const libc = () => (symbols ??= load());

/** flock(2): true when the lock was taken. The kernel drops it when the descriptor is closed. */
export const flock = (fd: number, operation: number): boolean => libc().flock(fd, operation) === 0;

/** pipe2(2) with O_CLOEXEC: `[read end, write end]`, to be given to children and then closed. */
export function pipe(): [number, number] {
  const fds = new Int32Array(2);
  if (libc().pipe2(ptr(fds), O_CLOEXEC) !== 0) throw new Error("pipe2 failed: too many open files?");
  return [fds[0]!, fds[1]!];
}
