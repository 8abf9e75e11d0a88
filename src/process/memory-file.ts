/** Files that are a guest's RAM: in memory only (memfd_create(2)), copied to a disk without their holes, and filled up there. */
import { fstatSync, ftruncateSync } from "node:fs";
import { ffi, loadFunctions } from "./c-library.ts";
import { libc, shareBlocks, systemError } from "./libc.ts";
import { throwIfInterrupted } from "./signals.ts";

/** glibc has it since 2.27. */
const CREATE = { memfd_create: { args: ["ptr", "u32"], returns: "i32" } } as const;
const COPY = {
  lseek: { args: ["i32", "i64", "i32"], returns: "i64" },
  sendfile: { args: ["i32", "i32", "ptr", "u64"], returns: "i64" },
} as const;

const ALLOCATE = { fallocate: { args: ["i32", "i32", "i64", "i64"], returns: "i32" } } as const;

const MFD_CLOEXEC = 1;
/** Since Linux 6.3, where `vm.memfd_noexec` may require it. */
const MFD_NOEXEC_SEAL = 8;

/**
 * Creates a file of `bytes` in memory, all holes. No limit of /dev/shm applies. The caller closes it.
 * @param name for /proc/PID/maps
 * @throws a system error; an Error if the C library is too old
 */
export function createMemoryFile(name: string, bytes: number): number {
  const { memfd_create: create } = loadFunctions(CREATE);
  const nameBytes = Buffer.from(`${name}\0`);
  const make = (flags: number): number => create(ffi().ptr(nameBytes), flags);
  let fd = make(MFD_CLOEXEC | MFD_NOEXEC_SEAL);
  if (fd < 0) fd = make(MFD_CLOEXEC);
  if (fd < 0) throw systemError("memfd_create");
  try {
    ftruncateSync(fd, bytes);
    return fd;
  } catch (error) {
    libc().close(fd);
    throw error;
  }
}

const SEEK_SET = 0;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = -6;

/** One call of sendfile(2) blocks this process: a stop signal is noticed between two. */
const PIECE_BYTES = 64 << 20;

/**
 * Copies an open file into an open empty one, in the kernel and without the holes: of the same blocks where the filesystem can
 * share them (Btrfs, XFS, bcachefs). No process may write to the file meanwhile.
 * @param from a descriptor of its own open file description: its offset moves
 * @returns the bytes copied; 0 if all are shared
 * @throws a system error, or after a stop signal
 */
export async function copySparse(from: number, to: number): Promise<number> {
  const { lseek, sendfile } = loadFunctions(COPY);
  const seek = (fd: number, at: number, whence: number): number | undefined => {
    const place = Number(lseek(fd, BigInt(at), whence));
    if (place >= 0) return place;
    const error = systemError("lseek");
    if (error.errno === ENXIO) return undefined;
    throw error;
  };
  if (shareBlocks(from, to)) return 0;
  const { size } = fstatSync(from);
  ftruncateSync(to, size);
  let copied = 0;
  for (let start = seek(from, 0, SEEK_DATA); start !== undefined;) {
    const end = seek(from, start, SEEK_HOLE) ?? size;
    seek(from, start, SEEK_SET);
    seek(to, start, SEEK_SET);
    while (start < end) {
      const sent = Number(sendfile(to, from, null, BigInt(Math.min(end - start, PIECE_BYTES))));
      if (sent < 0) throw systemError("sendfile");
      if (sent === 0) throw new Error("sendfile: the file has shrunk");
      start += sent;
      copied += sent;
      if (copied % PIECE_BYTES < sent) {
        await new Promise(setImmediate);
        throwIfInterrupted();
      }
    }
    start = seek(from, end, SEEK_DATA);
  }
  return copied;
}

/**
 * Allocates the holes of an open file, which reads as before (fallocate(2)). Interrupted by signals on tmpfs, it is repeated.
 * @returns false if the filesystem cannot
 * @throws any other system error, such as ENOSPC
 */
export function allocateHoles(fd: number): boolean {
  const { fallocate } = loadFunctions(ALLOCATE);
  const { size } = fstatSync(fd);
  if (size === 0) return true;
  while (fallocate(fd, 0, 0n, BigInt(size)) !== 0) {
    const error = systemError("fallocate");
    if (error.code === "EOPNOTSUPP" || error.code === "ENOSYS") return false;
    if (error.code !== "EINTR") throw error;
    throwIfInterrupted();
  }
  return true;
}
