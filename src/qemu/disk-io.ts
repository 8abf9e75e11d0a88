import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { VmError } from "../lib/errors.ts";
import type { Disk, DiskAio } from "../machine/types.ts";
import { findIoUringProblem } from "../process/libc.ts";
import type { Capabilities } from "./capabilities.ts";
import { isSince } from "./features.ts";

/** How a disk's image is read and written. */
export interface DiskIo {
  aio: "io_uring" | "threads";
  /** Why it is not io_uring; absent if `threads` is what the user wants. */
  problem?: string;
}

/**
 * Filesystems of the host whose files qemu uses by io_uring, by f_type of statfs(2). It has hung on others (CIFS), and on
 * block devices (LVM, RBD).
 */
const LOCAL_FILESYSTEMS: ReadonlySet<number> = new Set([
  // ext4
  0xef53,
  // xfs
  0x58465342,
  // btrfs
  0x9123683e,
  // tmpfs
  0x01021994,
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
export function chooseDiskIo(
  wanted: DiskAio,
  capabilities: Capabilities,
  { path, blockDevice = false }: Pick<Disk, "path" | "blockDevice">,
): DiskIo {
  if (wanted === "threads") return { aio: "threads" };
  const problem = ioUringProblem(capabilities);
  if (wanted === "io_uring") {
    if (problem === undefined) return { aio: "io_uring" };
    throw new VmError("unavailable", `cannot use DISK_AIO=io_uring: ${problem}`, {
      hint: "use threads where io_uring does not work: DISK_AIO=auto",
    });
  }
  const here = problem ?? (blockDevice ? "it is a block device" : filesystemProblem(dirname(path)));
  return here === undefined ? { aio: "io_uring" } : { aio: "threads", problem: here };
}

/** Why io_uring is not used for files in a directory; undefined if it is. */
export function filesystemProblem(directory: string): string | undefined {
  let type: number;
  try {
    type = statfsSync(directory).type >>> 0;
  } catch {
    return "its filesystem is unknown";
  }
  return LOCAL_FILESYSTEMS.has(type)
    ? undefined
    : `its filesystem (type 0x${type.toString(16)}) is not a local one`;
}

/**
 * Can a virtio disk have a thread of its own? With one, qemu 7.1 hangs by io_uring (its issue 1193), 8.1 to 8.2.1 after a
 * backup (notifications of the guest stay off after a drain), and 8.2.2 to 10.0 may hang when a block job's nodes are removed
 * (it drains while it holds the lock of the block graph).
 */
const canHaveThread = (version: string): boolean =>
  (isSince(version, [7, 2]) && !isSince(version, [8, 1])) || isSince(version, [10, 1]);

/** The disk with what its device and node need for that. */
export function withDiskIo(disk: Disk, wanted: DiskAio, capabilities: Capabilities): Disk {
  const { aio } = chooseDiskIo(wanted, capabilities, disk);
  if (aio === "threads") return disk;
  const ioThread = disk.bus === "VIRT" && canHaveThread(capabilities.version);
  return { ...disk, aio, ioThread };
}
