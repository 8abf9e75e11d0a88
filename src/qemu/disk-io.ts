import { readFileSync, statfsSync, statSync } from "node:fs";
import { release } from "node:os";
import { dirname } from "node:path";
import { VmError } from "../lib/errors.ts";
import type { Aio, Disk, DiskAio, DiskBus } from "../machine/types.ts";
import { findIoUringProblem } from "../process/libc.ts";
import type { Capabilities } from "./capabilities.ts";
import { isSince, type Since } from "./features.ts";

type Image = Pick<Disk, "path" | "blockDevice"> & { bus?: DiskBus; format?: Disk["format"] };

const TMPFS = 0x01021994;

/** Why qemu cannot use io_uring on this host; undefined if it can. */
export const ioUringProblem = ({ ioUring }: Capabilities): string | undefined =>
  findIoUringProblem() ?? (ioUring ? undefined : "this qemu is built without io_uring");

/**
 * Chooses how to read and write an image: on tmpfs by native requests, elsewhere by io_uring, where these work and the bus is
 * a fast one.
 * @throws 69 if io_uring is required and does not work
 */
export function chooseDiskIo(wanted: DiskAio, capabilities: Capabilities, image: Image): Aio {
  const isSlow = image.bus !== undefined && !FAST_BUSES.has(image.bus);
  if (wanted === "threads" || (wanted === "auto" && isSlow)) return "threads";
  const isOnTmpfs = !image.blockDevice && filesystemOf(dirname(image.path)) === TMPFS;
  if (wanted === "auto" && isOnTmpfs) return canBeNative(capabilities, image) ? "native" : "threads";
  const problem = ioUringProblem(capabilities);
  if (problem !== undefined && wanted === "io_uring")
    throw new VmError("unavailable", `cannot use DISK_AIO=io_uring: ${problem}`, {
      hint: "use threads where io_uring does not work: DISK_AIO=auto",
    });
  return problem === undefined && endsOn(SECTOR_BYTES, image) ? "io_uring" : "threads";
}

/**
 * qemu reads in units of this size. By io_uring, qemu 7.2 never finishes to read one that the file ends in, and such a guest
 * hangs. Its qcow2 images grow by whole ones; `endOnSector` completes a new image.
 */
const SECTOR_BYTES = 512;

/** The largest logical block that O_DIRECT may need. */
const DIRECT_BYTES = 4096;

/** Is the size of an image's file, if it exists, a multiple? */
const endsOn = (bytes: number, { path, blockDevice }: Image): boolean =>
  blockDevice === true || (statSync(path, { throwIfNoEntry: false })?.size ?? 0) % bytes === 0;

/** Type of a directory's filesystem (f_type of statfs(2)); undefined if it cannot be read. */
function filesystemOf(directory: string): number | undefined {
  try {
    return statfsSync(directory).type >>> 0;
  } catch {
    return undefined;
  }
}

/**
 * Buses whose devices complete such requests well. On AHCI a request that is done at once may wait for the guest's next
 * timer tick, and io_uring writes 4 KiB at 0.8 times the speed of threads (scripts/bench disks).
 */
const FAST_BUSES: ReadonlySet<DiskBus> = new Set<DiskBus>(["VIRT", "SCSI", "NVME"]);

/** The first Linux whose tmpfs accepts O_DIRECT. */
const DIRECT_TMPFS: Since = [6, 6];

/** Requests that qemu reserves for each thread that reads or writes (block/linux-aio.c), with a margin for further ones. */
const RESERVED_REQUESTS = 8192;

/**
 * On tmpfs native requests are done at once, by the caller, without the two switches between threads that io_uring and the
 * pool need: twice to three times as many of 4 KiB. They need O_DIRECT.
 */
function canBeNative({ nativeAio }: Capabilities, image: Image): boolean {
  return (
    nativeAio &&
    (image.format !== "raw" || endsOn(DIRECT_BYTES, image)) &&
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
  const aio = chooseDiskIo(wanted, capabilities, disk);
  return aio === "threads" ? disk : { ...disk, aio };
}
