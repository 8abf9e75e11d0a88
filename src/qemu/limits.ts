import { ARCH } from "../machine/arch.ts";
import type { Arch, DiskBus, Machine } from "../machine/types.ts";
import { buildQemuArgv } from "./argv.ts";

/** A request beyond a limit of the machine type. */
export interface Excess {
  what: "processors" | "PCI devices";
  wanted: number;
  most: number;
}

/** Devices on other buses than PCI. */
const NON_PCI = /^(ide-|scsi-(hd|cd|block|generic)|usb-|virtserialport|virtconsole|vmgenid|pvpanic(?!-pci))/;
const OTHER_BUS = /,bus=(?!pci\.0\b|pcie\.0\b)/;

/** Pure: number of devices that an argument list adds to the first PCI bus. */
export const countPciDevices = (argv: readonly string[]): number =>
  argv.filter((word, at) => argv[at - 1] === "-device" && !NON_PCI.test(word) && !OTHER_BUS.test(word))
    .length;

/** Pure: the first limit that a machine exceeds; undefined if there is none. */
export function findExcess(
  { arch, sockets, cores }: Pick<Machine, "arch" | "sockets" | "cores">,
  argv: readonly string[],
): Excess | undefined {
  const { maxCpus, pciSlots: most } = ARCH[arch];
  if (sockets * cores > maxCpus) return { what: "processors", wanted: sockets * cores, most: maxCpus };
  const wanted = countPciDevices(argv);
  return wanted > most ? { what: "PCI devices", wanted, most } : undefined;
}

/** Facts about a new VM that are known before its first run. */
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

/** Pure: the argument list of such a machine, with placeholders for files. */
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
    smbios: [],
    panicDevice: undefined,
    channels: [{ name: "agent", socket: "agent" }],
    files: { qmp: "q", monitor: "m", console: "c", consoleLog: "l" },
    endOnReset: false,
    extraArgs: [],
  };
  const version = "7.2";
  return buildQemuArgv(machine, { version, devices: new Set(), spice: true, vnc: true, sandbox: true });
}
