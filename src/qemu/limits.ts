import { ARCH } from "../machine/arch.ts";
import type { Machine } from "../machine/types.ts";
import { countPlaces, USB, type NumberedDisk } from "./devices/disk.ts";
import { PLACES } from "./layout.ts";

/** A request beyond a limit of the machine type. */
export interface Excess {
  what: "processors" | "PCI devices" | "places for disks" | "USB disks" | "shares";
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

/** What limits apply to. */
export type Limited = Pick<Machine, "arch" | "sockets" | "cores" | "layout"> & {
  disks: readonly NumberedDisk[];
  controllerPlaces: Machine["controllerPlaces"];
  shares: readonly unknown[];
};

/**
 * Pure: the first limit that a machine exceeds; undefined if there is none.
 * @param argv its arguments; only counted in layout 0
 */
export function findExcess(machine: Limited, argv: readonly string[]): Excess | undefined {
  const { arch, sockets, cores, layout, disks, shares } = machine;
  const { maxCpus, pciSlots } = ARCH[arch];
  const onUsb = disks.filter(({ bus }) => bus === "USB");
  const usbDisks = layout === 0 ? onUsb.length : Math.max(0, ...onUsb.map(({ number }) => number + 1));
  const counts: Excess[] = [
    { what: "processors", wanted: sockets * cores, most: maxCpus },
    { what: "USB disks", wanted: usbDisks, most: USB.ports - USB.firstDisk + 1 },
    ...(layout === 0
      ? [{ what: "PCI devices" as const, wanted: countPciDevices(argv), most: pciSlots }]
      : [
          { what: "places for disks" as const, wanted: countPlaces(machine), most: PLACES.disks },
          { what: "shares" as const, wanted: shares.length, most: PLACES.shares },
        ]),
  ];
  return counts.find(({ wanted, most }) => wanted > most);
}
