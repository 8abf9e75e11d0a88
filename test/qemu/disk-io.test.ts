import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { release } from "node:os";
import type { Disk, DiskBus } from "../../src/machine/types.ts";
import { findIoUringProblem } from "../../src/process/libc.ts";
import { chooseDiskIo, ioUringProblem, withDiskIo } from "../../src/qemu/disk-io.ts";
import { isSince } from "../../src/qemu/features.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { QEMU } from "./machines.ts";

const TMPFS = "/dev/shm";
const onTmpfs = / \/dev\/shm tmpfs /.test(readFileSync("/proc/mounts", "utf8")) && isSince(release(), [6, 6]);

const disk = (path: string, bus: DiskBus = "VIRT", changes: Partial<Disk> = {}): Disk => ({
  number: 0,
  bus,
  format: "qcow2",
  path,
  serial: "disk-0",
  backingAllowed: false,
  ...changes,
});

describe("chooseDiskIo", () => {
  test("DISK_AIO=threads: threads, without a problem", () => {
    expect(chooseDiskIo("threads", QEMU, disk("/tmp/disk-0.img"))).toBe("threads");
  });

  test("a block device has threads", () => {
    const image = disk("/dev/vg/lv", "VIRT", { blockDevice: true });
    expect(chooseDiskIo("auto", QEMU, image)).toBe("threads");
  });

  test("DISK_AIO=io_uring where qemu lacks it is refused (69)", async () => {
    const image = disk("/tmp/disk-0.img");
    const error = await failureOf(() => chooseDiskIo("io_uring", { ...QEMU, ioUring: false }, image));
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("io_uring");
    expect(error.hint).toContain("DISK_AIO=auto");
  });

  test("io_uring is never chosen by itself: qemu hangs in reads beyond the end of a file", () => {
    expect(chooseDiskIo("auto", QEMU, disk("/proc/disk-0.img"))).toBe("threads");
  });

  test.if(findIoUringProblem() === undefined)("a raw image with half a sector has threads", () => {
    using temp = new Temp();
    for (const [bytes, aio] of [
      [6, "threads"],
      [1_000_001, "threads"],
      [8192, "io_uring"],
    ] as const) {
      temp.write("raw", "x".repeat(bytes));
      expect(chooseDiskIo("io_uring", QEMU, disk(temp.path("raw"), "VIRT", { format: "raw" }))).toBe(aio);
    }
  });

  test.if(findIoUringProblem() === undefined)("a qemu without io_uring is named", () => {
    expect(ioUringProblem(QEMU)).toBeUndefined();
    expect(ioUringProblem({ ...QEMU, ioUring: false })).toContain("this qemu");
  });
});

describe.if(onTmpfs && findIoUringProblem() === undefined)("on tmpfs", () => {
  test.each([
    ["VIRT", {}, "native"],
    ["SCSI", {}, "native"],
    ["NVME", {}, "native"],
    ["AHCI", {}, undefined],
    ["VIRT", { nativeAio: false }, undefined],
  ] as const)("%s, qemu %j: %p", (bus, qemu, aio) => {
    const image = disk(`${TMPFS}/disk-0.img`, bus);
    expect(withDiskIo(image, "auto", { ...QEMU, ...qemu })).toEqual({ ...image, ...(aio && { aio }) });
    expect(withDiskIo(image, "threads", QEMU)).toEqual(image);
    expect(withDiskIo(image, "io_uring", QEMU).aio).toBe("io_uring");
    using temp = new Temp();
    temp.write("raw", "decoy");
    const half = { ...disk(temp.path("raw"), bus), format: "raw" as const };
    expect(withDiskIo(half, "auto", QEMU)).toEqual(half);
  });
});
