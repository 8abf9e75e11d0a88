import { describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import type { Disk, DiskBus } from "../../src/machine/types.ts";
import { findIoUringProblem } from "../../src/process/libc.ts";
import { chooseDiskIo, filesystemProblem, ioUringProblem, withDiskIo } from "../../src/qemu/disk-io.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { QEMU } from "./machines.ts";

/** Where the kernel of the test forbids io_uring, nothing chooses it. */
const allowed = findIoUringProblem() === undefined;
const io = allowed ? "io_uring" : "threads";

function disk(path: string, bus: DiskBus = "VIRT", changes: Partial<Disk> = {}): Disk {
  return { number: 0, bus, format: "qcow2", path, serial: "disk-0", backingAllowed: false, ...changes };
}

describe("chooseDiskIo", () => {
  test.each([
    ["auto", {}, {}, io, allowed ? undefined : expect.any(String)],
    ["threads", {}, {}, "threads", undefined],
    ["auto", { ioUring: false }, {}, "threads", expect.any(String)],
    ["auto", {}, { blockDevice: true }, "threads", expect.any(String)],
    ["io_uring", {}, { blockDevice: true }, io, undefined],
  ] as const)("DISK_AIO=%s, qemu %j, image %j: %s", (wanted, qemu, changes, aio, problem) => {
    using temp = new Temp();
    const image = disk(temp.path("disk-0.img"), "VIRT", changes);
    if (wanted === "io_uring" && !allowed) return;
    expect(chooseDiskIo(wanted, { ...QEMU, ...qemu }, image)).toEqual({ aio, ...(problem && { problem }) });
  });

  test("DISK_AIO=io_uring where qemu lacks it is refused (69)", async () => {
    const error = await failureOf(() =>
      chooseDiskIo("io_uring", { ...QEMU, ioUring: false }, disk("/tmp/disk-0.img")),
    );
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("io_uring");
    expect(error.hint).toContain("DISK_AIO=auto");
  });

  test("a filesystem that is not a local disk's, or unknown, has threads", () => {
    expect(filesystemProblem("/proc")).toContain("0x9fa0");
    expect(filesystemProblem("/no/such/directory")).toContain("unknown");
    using temp = new Temp();
    mkdirSync(temp.path("here"));
    expect(filesystemProblem(temp.path("here"))).toBeUndefined();
  });

  test("a qemu without io_uring is named", () => {
    if (allowed) expect(ioUringProblem({ ...QEMU, ioUring: false })).toContain("this qemu");
    else expect(ioUringProblem(QEMU)).toContain("kernel");
  });
});

describe.if(allowed)("withDiskIo", () => {
  test.each([
    ["VIRT", "7.2.22", true],
    ["VIRT", "7.1.0", false],
    ["VIRT", "8.0.5", true],
    ["VIRT", "8.1.3", false],
    ["VIRT", "8.2.2", false],
    ["VIRT", "10.0.2", false],
    ["VIRT", "10.1.0", true],
    ["VIRT", "11.0.0", true],
    ["SCSI", "7.2.22", false],
    ["AHCI", "7.2.22", false],
    ["NVME", "7.2.22", false],
    ["USB", "7.2.22", false],
  ] as const)("%s, qemu %s: a thread of its own: %p", (bus, version, ioThread) => {
    using temp = new Temp();
    const image = disk(temp.path("disk-0.img"), bus);
    expect(withDiskIo(image, "auto", { ...QEMU, version })).toEqual({ ...image, aio: "io_uring", ioThread });
    expect(withDiskIo(image, "threads", { ...QEMU, version })).toEqual(image);
  });
});
