import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { release } from "node:os";
import type { Disk, DiskBus } from "../../src/machine/types.ts";
import { findIoUringProblem } from "../../src/process/libc.ts";
import { chooseDiskIo, filesystemProblem, ioUringProblem, withDiskIo } from "../../src/qemu/disk-io.ts";
import { isSince } from "../../src/qemu/features.ts";
import { failureOf } from "../fixtures/failure.ts";
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
    expect(chooseDiskIo("threads", QEMU, disk("/tmp/disk-0.img"))).toEqual({ aio: "threads" });
  });

  test("a block device has threads", () => {
    const image = disk("/dev/vg/lv", "VIRT", { blockDevice: true });
    expect(chooseDiskIo("auto", QEMU, image)).toEqual({ aio: "threads", problem: "it is a block device" });
  });

  test("DISK_AIO=io_uring where qemu lacks it is refused (69)", async () => {
    const image = disk("/tmp/disk-0.img");
    const error = await failureOf(() => chooseDiskIo("io_uring", { ...QEMU, ioUring: false }, image));
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("io_uring");
    expect(error.hint).toContain("DISK_AIO=auto");
  });

  test("without io_uring, an image on another filesystem than tmpfs has threads", () => {
    const { aio, problem } = chooseDiskIo("auto", { ...QEMU, ioUring: false }, disk("/proc/disk-0.img"));
    expect(aio).toBe("threads");
    expect(problem).toBeString();
  });

  test.each<[type: number | undefined, problem: string | undefined]>([
    [0xef53, undefined],
    [0x58465342, undefined],
    [0x9123683e, undefined],
    [0x01021994, undefined],
    [0x6969, "its filesystem (type 0x6969) is not a local one"],
    [0xff534d42, "its filesystem (type 0xff534d42) is not a local one"],
    [undefined, "its filesystem is unknown"],
  ])("a filesystem of type %p: %p", (type, problem) => {
    expect(filesystemProblem(type)).toBe(problem);
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
    ["AHCI", {}, "io_uring"],
    ["VIRT", { nativeAio: false }, "io_uring"],
    ["VIRT", { nativeAio: false, ioUring: false }, undefined],
  ] as const)("%s, qemu %j: %p", (bus, qemu, aio) => {
    const image = disk(`${TMPFS}/disk-0.img`, bus);
    expect(withDiskIo(image, "auto", { ...QEMU, ...qemu })).toEqual({ ...image, ...(aio && { aio }) });
    expect(withDiskIo(image, "threads", QEMU)).toEqual(image);
    expect(withDiskIo(image, "io_uring", QEMU).aio).toBe("io_uring");
  });
});
