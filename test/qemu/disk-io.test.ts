import { describe, expect, test } from "bun:test";
import { readFileSync, symlinkSync } from "node:fs";
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

  test("DISK_AIO=io_uring where qemu lacks it is refused (69)", async () => {
    const image = disk("/tmp/disk-0.img");
    const error = await failureOf(() => chooseDiskIo("io_uring", { ...QEMU, ioUring: false }, image));
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("io_uring");
    expect(error.hint).toContain("DISK_AIO=auto");
  });

  test("by itself: threads where qemu lacks io_uring", () => {
    expect(chooseDiskIo("auto", { ...QEMU, ioUring: false }, disk("/proc/disk-0.img"))).toBe("threads");
  });

  test.if(findIoUringProblem() === undefined)("by itself: io_uring for files and block devices", () => {
    expect(chooseDiskIo("auto", QEMU, disk("/proc/disk-0.img"))).toBe("io_uring");
    expect(chooseDiskIo("auto", QEMU, disk("/dev/vg/lv", "VIRT", { blockDevice: true }))).toBe("io_uring");
  });

  test.if(findIoUringProblem() === undefined).each<[DiskBus, "io_uring" | "threads"]>([
    ["VIRT", "io_uring"],
    ["SCSI", "io_uring"],
    ["NVME", "io_uring"],
    ["AHCI", "threads"],
    ["USB", "threads"],
  ])("by itself, a disk on %s: %s; if asked for, io_uring", (bus, aio) => {
    expect(chooseDiskIo("auto", QEMU, disk("/proc/disk-0.img", bus))).toBe(aio);
    expect(chooseDiskIo("io_uring", QEMU, disk("/proc/disk-0.img", bus))).toBe("io_uring");
  });

  test.if(findIoUringProblem() === undefined).each(["raw", "qcow2"] as const)(
    "a %s image that ends within a sector has threads, also behind a link",
    (format) => {
      using temp = new Temp();
      symlinkSync("image", temp.path("link"));
      for (const [bytes, aio] of [
        [6, "threads"],
        [1_000_001, "threads"],
        [512 * 15, "io_uring"],
      ] as const) {
        temp.write("image", "x".repeat(bytes));
        for (const name of ["image", "link"])
          expect(chooseDiskIo("io_uring", QEMU, disk(temp.path(name), "VIRT", { format }))).toBe(aio);
      }
    },
  );

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
