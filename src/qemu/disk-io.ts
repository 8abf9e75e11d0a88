import { readFileSync, statfsSync } from "node:fs";
import { release } from "node:os";
import { dirname } from "node:path";
import { VmError } from "../lib/errors.ts";
import type { Aio, Disk, DiskAio, DiskBus } from "../machine/types.ts";
import { findIoUringProblem } from "../process/libc.ts";
import type { Capabilities } from "./capabilities.ts";
import { isSince, type Since } from "./features.ts";

/** How a disk's image is read and written. */
export interface DiskIo {
  aio: Aio;
  /** Why qemu's default, threads, is used; absent if that is what the user wants. */
  problem?: string;
}

type Image = Pick<Disk, "path" | "blockDevice"> & { bus?: DiskBus };

const TMPFS = 0x01021994;

/**
 * Filesystems of the host whose files qemu uses by io_uring, by f_type of statfs(2). It has hung on others (CIFS), and on
 * block devices (LVM, RBD).
 */
const LOCAL_FILESYSTEMS: ReadonlySet<number> = new Set([
  TMPFS,
  // ext4
  0xef53,
  // xfs
  0x58465342,
  // btrfs
  0x9123683e,
  // f2fs
  0xf2f52010,
  // overlayfs
  0x794c7630,
]);

/** Why qemu cannot use io_uring on this host; undefined if it can. */
export const ioUringProblem = ({ ioUring }: Capabilities): string | undefined =>
  findIoUringProblem() ?? (ioUring ? undefined : "this qemu is built without io_uring");

/**
 * Chooses how to read and write an image.
 * @throws 69 if io_uring is required and does not work
 */
export function chooseDiskIo(wanted: DiskAio, capabilities: Capabilities, image: Image): DiskIo {
  if (wanted === "threads") return { aio: "threads" };
  const problem = ioUringProblem(capabilities);
  if (wanted === "io_uring") {
    if (problem === undefined) return { aio: "io_uring" };
    throw new VmError("unavailable", `cannot use DISK_AIO=io_uring: ${problem}`, {
      hint: "use threads where io_uring does not work: DISK_AIO=auto",
    });
  }
  if (image.blockDevice) return { aio: "threads", problem: "it is a block device" };
  const type = filesystemOf(dirname(image.path));
  if (type === TMPFS && canBeNative(capabilities, image)) return { aio: "native" };
  const here = problem ?? filesystemProblem(type);
  return here === undefined ? { aio: "io_uring" } : { aio: "threads", problem: here };
}

/** Type of a directory's filesystem (f_type of statfs(2)); undefined if it cannot be read. */
function filesystemOf(directory: string): number | undefined {
  try {
    return statfsSync(directory).type >>> 0;
  } catch {
    return undefined;
  }
}

/** Pure: why io_uring is not used for files of such a filesystem; undefined if it is. */
export function filesystemProblem(type: number | undefined): string | undefined {
  if (type === undefined) return "its filesystem is unknown";
  if (LOCAL_FILESYSTEMS.has(type)) return undefined;
  return `its filesystem (type 0x${type.toString(16)}) is not a local one`;
}

/** Buses whose devices complete such requests well. */
const NATIVE_BUSES: ReadonlySet<DiskBus> = new Set<DiskBus>(["VIRT", "SCSI", "NVME"]);

/** The first Linux whose tmpfs accepts O_DIRECT. */
const DIRECT_TMPFS: Since = [6, 6];

/** Requests that qemu reserves for each thread that reads or writes (block/linux-aio.c), with a margin for further ones. */
const RESERVED_REQUESTS = 8192;

/**
 * On tmpfs native requests are done at once, by the caller, without the two switches between threads that io_uring and the
 * pool need: twice to three times as many of 4 KiB. They need O_DIRECT. On AHCI a request that is done
 * at once may wait for the guest's next timer tick.
 */
function canBeNative({ nativeAio }: Capabilities, { bus }: Image): boolean {
  return (
    nativeAio &&
    (bus === undefined || NATIVE_BUSES.has(bus)) &&
    freeRequests() >= RESERVED_REQUESTS &&
    isSince(release(), DIRECT_TMPFS)
  );
}

/** Native requests that may still be reserved on this host (Linux's Documentation/admin-guide/sysctl/fs.rst). */
function freeRequests(): number {
  try {
    const [most, used] = ["max-nr", "nr"].map((name) =>
      Number(readFileSync(`/proc/sys/fs/aio-${name}`, "utf8")),
    ) as [number, number];
    return most - used;
  } catch {
    return 0;
  }
}

/** The disk with what its node needs for that. */
export function withDiskIo(disk: Disk, wanted: DiskAio, capabilities: Capabilities): Disk {
  const { aio } = chooseDiskIo(wanted, capabilities, disk);
  return aio === "threads" ? disk : { ...disk, aio };
}
