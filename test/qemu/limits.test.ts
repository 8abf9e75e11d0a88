import { describe, expect, test } from "bun:test";
import { countPciDevices, findExcess, planArgv, type PlannedMachine } from "../../src/qemu/limits.ts";
import type { Arch, DiskBus } from "../../src/machine/types.ts";

const disks = (bus: DiskBus, count: number): { bus: DiskBus }[] =>
  Array.from({ length: count }, () => ({ bus }));

const plan = (more: Partial<PlannedMachine>): PlannedMachine => ({
  arch: "x86_64",
  sockets: 1,
  cores: 2,
  uefi: false,
  disks: [],
  cd: false,
  seed: false,
  network: true,
  shares: 2,
  display: "none",
  ...more,
});
const excessOf = (more: Partial<PlannedMachine>): string => {
  const machine = plan(more);
  const found = findExcess(machine, planArgv(machine));
  return found ? `${found.wanted} ${found.what}, not ${found.most}` : "fits";
};

// Each limit was tried with qemu 7.2: with one device more it fails: "PCI: no slot/function available".
describe("slots of the bus", () => {
  test.each<[string, Partial<PlannedMachine>, string]>([
    ["23 VIRT disks", { disks: disks("VIRT", 23) }, "fits"],
    ["24 VIRT disks", { disks: disks("VIRT", 24) }, "31 PCI devices, not 30"],
    ["24 without a network", { disks: disks("VIRT", 24), network: false }, "fits"],
    ["23 and SPICE's own port", { disks: disks("VIRT", 23), display: "spice" }, "31 PCI devices, not 30"],
    ["23 and a seed", { disks: disks("VIRT", 23), seed: true }, "31 PCI devices, not 30"],
    ["23 and a CD", { disks: disks("VIRT", 23), cd: true }, "31 PCI devices, not 30"],
    ["24 NVMe disks with UEFI", { disks: disks("NVME", 24), uefi: true }, "31 PCI devices, not 30"],
    ["138 AHCI disks", { disks: disks("AHCI", 138) }, "fits"],
    ["139 AHCI disks", { disks: disks("AHCI", 139) }, "31 PCI devices, not 30"],
    ["66 SCSI disks and 21 VIRT", { disks: [...disks("SCSI", 66), ...disks("VIRT", 21)] }, "fits"],
    ["26 shares", { shares: 26 }, "31 PCI devices, not 30"],
    ["24 on another machine", { disks: disks("VIRT", 24), arch: "riscv64" }, "fits"],
  ])("%s", (_name, more, expected) => {
    expect(excessOf(more)).toBe(expected);
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
