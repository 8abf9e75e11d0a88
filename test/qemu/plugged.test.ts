import { expect, test } from "bun:test";
import { buildQemuArgv } from "../../src/qemu/argv.ts";
import { buildHotpluggedDevices } from "../../src/qemu/devices/disk.ts";
import type { Disk } from "../../src/machine/types.ts";
import { machineWith, QEMU } from "./machines.ts";

const disk = (bus: Disk["bus"], serial: string, number: number): Disk => ({
  number,
  bus,
  format: "qcow2",
  path: `/w/${serial}.img`,
  serial,
  backingAllowed: false,
});
const disks = [disk("NVME", "a", 0), disk("VIRT", "b", 1), disk("NVME", "c", 2)];
/** The argument of each `-device`. */
const devicesOf = (resumed: boolean): string[] => {
  const argv = buildQemuArgv(machineWith({ disks, resumed }), QEMU);
  return argv.filter((word, at) => argv[at - 1] === "-device" && /nvme|virtio-blk|root-port/.test(word));
};

test("a restored machine has ports instead of NVMe disks, which device_add fills", () => {
  expect(devicesOf(true)).toEqual([
    "pcie-root-port,id=port0,chassis=1",
    "virtio-blk-pci,id=disk1-dev,drive=disk1,serial=b,bootindex=2",
    "pcie-root-port,id=port1,chassis=2",
  ]);
  expect(buildHotpluggedDevices({ disks, resumed: true })).toEqual([
    { driver: "nvme", id: "disk0-dev", drive: "disk0", serial: "a", bus: "port0" },
    { driver: "nvme", id: "disk2-dev", drive: "disk2", serial: "c", bus: "port1" },
  ]);
});

test("a machine that boots has its NVMe disks from the start", () => {
  expect(devicesOf(false).filter((word) => word.startsWith("nvme,"))).toHaveLength(2);
  expect(buildHotpluggedDevices({ disks, resumed: false })).toEqual([]);
});
