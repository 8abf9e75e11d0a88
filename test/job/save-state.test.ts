import { expect, test } from "bun:test";
import { bareMachine, resumedMachine } from "../../src/job/save-state.ts";
import { CHANNELS } from "../../src/job/rescue-machine.ts";
import { DISK_BUSES, type Machine } from "../../src/machine/types.ts";
import { buildQemuArgv } from "../../src/qemu/argv.ts";
import { machineWith, QEMU } from "../qemu/machines.ts";

const share = (tag: string, path: string): Machine["shares"][number] => ({
  tag,
  path,
  writable: tag === "out",
  security: tag === "out" ? "mapped-file" : "none",
});
const job = machineWith({
  kernel: { image: "vmlinux", initrd: "initrd", append: "quiet rescue.port rescue.disks=5" },
  disks: DISK_BUSES.map((bus, number) => ({
    number,
    bus,
    format: "raw",
    path: `/w/${bus}.img`,
    serial: bus,
    backingAllowed: false,
  })),
  nics: [],
  shares: [share("mirror", "/m"), share("in", "/w/.in"), share("out", "/w/.out")],
  ram: undefined,
  display: { kind: "serial" },
  channels: CHANNELS.map(({ name, socket }) => ({ name, socket })),
});
const argv = (machine: Machine): string[] => buildQemuArgv(bareMachine(machine), QEMU);
/** In the order on the bus. */
const devicesOf = (machine: Machine): string[] => {
  const words = buildQemuArgv(machine, QEMU);
  return words.filter((word, at) => words[at - 1] === "-device" && !word.startsWith("virtserialport"));
};

test("a resumed machine begins with the devices of the saved one, which has nothing of a guest", () => {
  const saved = devicesOf(bareMachine(job));
  const resumed = devicesOf(resumedMachine(job, "/ram"));
  expect(saved.join(" ")).toMatch(/virtio-net-pci\S* .*mount_tag=in\S* .*mount_tag=out\S*$/);
  expect(resumed.slice(0, saved.length)).toEqual(saved);
  expect(resumed.slice(saved.length).join(" ")).toContain("mount_tag=mirror");
  // As nothing is announced after the state is loaded, qemu 7.2 would crash when such a card is reset.
  expect(saved.find((device) => device.startsWith("virtio-net-pci"))).toContain("guest_announce=off");
});

test("all jobs share one saved machine, whatever their network and their disks", () => {
  const other = {
    ...job,
    disks: [],
    nics: [{ ...bareMachine(job).nics[0]!, forwards: ["hostfwd=tcp::5555-:22"] }],
  };
  expect(argv(other)).toEqual(argv(job));
  expect(argv(job).join(" ")).toContain("rescue.port rescue.warm");
});
