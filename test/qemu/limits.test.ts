import { describe, expect, test } from "bun:test";
import { countPciDevices, findExcess, type Limited } from "../../src/qemu/limits.ts";
import type { Arch, DiskBus } from "../../src/machine/types.ts";

const disks = (bus: DiskBus, count: number, first = 0): Limited["disks"] =>
  Array.from({ length: count }, (_, index) => ({ bus, number: first + index }));

const PLAIN: Limited = {
  arch: "x86_64",
  layout: 1,
  sockets: 1,
  cores: 2,
  disks: [],
  controllerPlaces: [],
  shares: [],
};
const devices = (count: number): string[] =>
  Array.from({ length: count }, () => ["-device", "virtio-blk-pci"]).flat();

const excessOf = (more: Partial<Limited>, argv: string[] = []): string => {
  const found = findExcess({ ...PLAIN, ...more }, argv);
  return found ? `${found.wanted} ${found.what}, not ${found.most}` : "fits";
};

describe("places in layout 1", () => {
  test.each<[string, Partial<Limited>, string]>([
    ["40 VIRT disks", { disks: disks("VIRT", 40) }, "fits"],
    ["41 VIRT disks", { disks: disks("VIRT", 41) }, "41 places for disks, not 40"],
    ["a disk number beyond", { disks: disks("NVME", 1, 40) }, "41 places for disks, not 40"],
    ["100 SCSI disks", { disks: disks("SCSI", 100) }, "fits"],
    ["40 AHCI disks", { disks: disks("AHCI", 40) }, "fits"],
    ["13 USB disks", { disks: disks("USB", 13) }, "fits"],
    ["14 USB disks", { disks: disks("USB", 14) }, "14 USB disks, not 13"],
    ["32 shares", { shares: Array.from({ length: 32 }) }, "fits"],
    ["33 shares", { shares: Array.from({ length: 33 }) }, "33 shares, not 32"],
  ])("%s", (_name, more, expected) => {
    expect(excessOf(more)).toBe(expected);
  });
});

// Each limit was tried with qemu 7.2: with one device more it fails: "PCI: no slot/function available".
describe("slots of the bus in layout 0", () => {
  test.each<[Arch, number, string]>([
    ["x86_64", 30, "fits"],
    ["x86_64", 31, "31 PCI devices, not 30"],
    ["riscv64", 31, "fits"],
  ])("%s with %d devices", (arch, count, expected) => {
    expect(excessOf({ arch, layout: 0 }, devices(count))).toBe(expected);
  });

  test("counts devices of PROG.defaults, except those on a bus of their own", () => {
    const extra = [
      "-device",
      "virtio-net-pci,netdev=n1",
      "-device",
      "x,bus=rp0",
      "-device",
      "usb-storage,drive=d",
    ];
    expect(countPciDevices([...extra, "-device", "virtio-rng-pci,bus=pci.0,addr=5"])).toBe(2);
  });
});

test.each<[Arch, number, number, string]>([
  ["x86_64", 1, 255, "fits"],
  ["x86_64", 2, 128, "256 processors, not 255"],
  ["i386", 64, 4, "256 processors, not 255"],
  ["armhf", 1, 9, "9 processors, not 8"],
  ["aarch64", 1, 512, "fits"],
])("%s with %d × %d processors: %s", (arch, sockets, cores, expected) => {
  expect(excessOf({ arch, sockets, cores })).toBe(expected);
});
