import { ARCH } from "../machine/arch.ts";
import type { Arch, DiskBus, Machine } from "../machine/types.ts";
import { buildQemuArgv } from "./argv.ts";

/** What a machine has of something, and what is wanted of it. */
export interface Excess {
  what: "processors" | "PCI devices";
  wanted: number;
  most: number;
}

/** Devices that stand on another bus than PCI. */
const ELSEWHERE = /^(ide-|scsi-(hd|cd|block|generic)|usb-|virtserialport|virtconsole|vmgenid)/;
const OTHER_BUS = /,bus=(?!pci\.0\b|pcie\.0\b)/;

/** Devices on the first PCI bus that an argument list asks for. Pure. */
export const countPciDevices = (argv: readonly string[]): number =>
  argv.filter((word, at) => argv[at - 1] === "-device" && !ELSEWHERE.test(word) && !OTHER_BUS.test(word))
    .length;

/** What of a machine is more than qemu gives it; undefined: nothing. Pure. */
export function findExcess(
  { arch, sockets, cores }: Pick<Machine, "arch" | "sockets" | "cores">,
  argv: readonly string[],
): Excess | undefined {
  const { maxCpus, pciSlots: most } = ARCH[arch];
  if (sockets * cores > maxCpus) return { what: "processors", wanted: sockets * cores, most: maxCpus };
  const wanted = countPciDevices(argv);
  return wanted > most ? { what: "PCI devices", wanted, most } : undefined;
}

/** What a new VM will have, as far as it is known before it runs. */
export interface PlannedMachine {
  arch: Arch;
  sockets: number;
  cores: number;
  uefi: boolean;
  disks: readonly { bus: DiskBus }[];
  cd: boolean;
  seed: boolean;
  network: boolean;
  shares: number;
  display: "spice" | "vnc" | "none";
}

/** The argument list of such a machine, with names in the places of files. Pure. */
export function planArgv(plan: PlannedMachine): string[] {
  const machine: Machine = {
    name: "vm",
    arch: plan.arch,
    accel: "tcg",
    cpu: "max",
    sockets: plan.sockets,
    cores: plan.cores,
    memoryMiB: 64,
    firmware: plan.uefi
      ? { code: { path: "code", format: "raw" }, vars: { path: "vars", format: "raw" } }
      : undefined,
    disks: plan.disks.map(({ bus }, index) => ({
      bus,
      format: "qcow2",
      path: `disk-${index}`,
      serial: `disk-${index}`,
      backingAllowed: false,
      base: undefined,
      blockDevice: false,
    })),
    cdrom: plan.cd ? { path: "cd", first: true } : undefined,
    seed: plan.seed ? "seed" : undefined,
    network: plan.network ? { forwards: [] } : undefined,
    shares: Array.from({ length: plan.shares }, (_, index) => ({
      tag: `s${index}`,
      path: "share",
      writable: false,
      security: "none",
    })),
    display:
      plan.display === "none"
        ? { kind: "none" }
        : { kind: plan.display, at: { socket: "s" }, passwordFile: undefined, tls: undefined },
    kernel: undefined,
    bootLoader: undefined,
    resumed: false,
    generationId: false,
    channels: [{ name: "agent", socket: "agent" }],
    files: { qmp: "q", monitor: "m", console: "c", consoleLog: "l" },
    endOnReset: false,
    extraArgs: [],
  };
  const version = "7.2";
  return buildQemuArgv(machine, { version, devices: new Set(), spice: true, vnc: true, sandbox: true });
}
