import type { FFIFunction, Library } from "bun:ffi";

/** glibc, then musl under the names its distributions use. */
const NAMES = ["libc.so.6", `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`, "libc.so"];

/** bun:ffi is loaded on first use: most commands do not need it. */
export const ffi = (): typeof import("bun:ffi") =>
  process.getBuiltinModule("bun:ffi") as typeof import("bun:ffi");

/** @throws if no C library has all of these functions */
export function loadFunctions<Functions extends Record<string, FFIFunction>>(
  functions: Functions,
): Library<Functions>["symbols"] {
  let last: unknown;
  for (const name of NAMES) {
    try {
      return ffi().dlopen(name, functions).symbols;
    } catch (error) {
      last = error;
    }
  }
  throw new Error("cannot load the C library", { cause: last });
}

const F_GETFD = 1;
const FD_CLOEXEC = 1;

/** Is an open descriptor close-on-exec (fcntl(2))? */
export function closesOnExec(fd: number): boolean {
  const { fcntl } = loadFunctions({ fcntl: { args: ["i32", "i32"], returns: "i32" } });
  return (fcntl(fd, F_GETFD) & FD_CLOEXEC) !== 0;
}
