import { ARCH } from "../machine/arch.ts";
import type { Machine } from "../machine/types.ts";

/**
 * Layout 1: the PCI place of each device of a machine. A guest derives names from it, as of network interfaces: a place
 * never changes, and does not depend on which other devices there are. In layout 0 qemu places the devices, in order of
 * the arguments.
 */

/** Machine facts that decide places. */
export type Placed = Pick<Machine, "arch" | "firmware" | "kernel" | "resumed" | "layout">;

/** Where a device is plugged in, as properties of `-device` and `device_add`. */
export interface Place {
  bus: string;
  /** Slot, and function if it is not 0. */
  addr?: string;
  multifunction?: "on";
}

/**
 * Boards: name of the first PCI bus, its first slot used, and whether hot plug needs root ports. `ide`: bus of the board's
 * own controller for the CD drive.
 */
const BOARDS = {
  pc: { bus: "pci.0", first: 2, ports: false, ide: "ide.1" },
  q35: { bus: "pcie.0", first: 1, ports: true, ide: "ide.2" },
  virt: { bus: "pcie.0", first: 2, ports: true, ide: undefined },
  pseries: { bus: "pci.0", first: 2, ports: false, ide: undefined },
} as const;

type Board = (typeof BOARDS)[keyof typeof BOARDS];

/** Slots of single devices, from the board's first. [compat] The earlier program's devices are in front. */
const SLOTS = {
  card: 0,
  rng: 1,
  disk: 2,
  nic: 3,
  // 4 to 7: shares.
  usb: 8,
  channels: 9,
  vdagent: 10,
  seed: 11,
  cd: 12,
  panic: 13,
  // Before the first disk: U-Boot boots in the order of the bus.
  firstCd: -1,
} as const;

export type Role = keyof typeof SLOTS;

const SHARES = { slot: 4, slots: 4 };
/** Of a root port or a slot each. */
const DISKS = { slot: 14, count: 8 };
/** Of the cards behind the first one: a root port or a slot each. */
const NICS = { portSlot: 15, slot: 22, count: 4 };
/** Places for disks beyond: on further root ports, or behind a bridge. */
const FURTHER = { slot: 26, count: 31 };

/** Number of places of each kind. */
export const PLACES = {
  disks: 1 + DISKS.count + FURTHER.count,
  nics: 1 + NICS.count,
  shares: SHARES.slots * 8,
} as const;

const BRIDGE = "bridge1";

/** qemu's name of the board, and its options. */
export function machineTypeOf({ arch, firmware, kernel, resumed }: Placed): string {
  const direct = kernel !== undefined || resumed;
  return ARCH[arch].machineType[firmware ? "uefi" : direct ? "kernel" : "bios"];
}

export const boardOf = (machine: Placed): Board =>
  BOARDS[machineTypeOf(machine).split(",")[0] as keyof typeof BOARDS];

const onRoot = ({ bus, first }: Board, slot: number, fn = 0): Place => ({
  bus,
  addr: `0x${(first + slot).toString(16)}${fn === 0 ? "" : `.0x${fn}`}`,
});

/** The place of a device that there is one of. */
export const placeOf = (machine: Placed, role: Role): Place | undefined =>
  machine.layout === 0 ? undefined : onRoot(boardOf(machine), SLOTS[role]);

/**
 * The place of a disk, or of its controller: that of the controller's first disk.
 * @param number of the disk, below `PLACES.disks`
 */
export function placeOfDisk(machine: Placed, number: number): Place | undefined {
  if (machine.layout === 0) return undefined;
  const board = boardOf(machine);
  if (number === 0) return onRoot(board, SLOTS.disk);
  if (board.ports) return { bus: diskPort(number) };
  if (number <= DISKS.count) return onRoot(board, DISKS.slot + number - 1);
  return { bus: BRIDGE, addr: `0x${(number - DISKS.count).toString(16)}` };
}

/** The place of a network card. @param number from 1 to `PLACES.nics` */
export function placeOfNic(machine: Placed, number: number): Place | undefined {
  if (machine.layout === 0) return undefined;
  const board = boardOf(machine);
  if (number === 1) return onRoot(board, SLOTS.nic);
  return board.ports ? { bus: nicPort(number) } : onRoot(board, NICS.slot + number - 2);
}

/** The place of a share. @param index from 0, below `count` */
export function placeOfShare(machine: Placed, index: number, count: number): Place | undefined {
  if (machine.layout === 0) return undefined;
  const fn = Math.floor(index / SHARES.slots);
  const place = onRoot(boardOf(machine), SHARES.slot + (index % SHARES.slots), fn);
  const shared = fn === 0 && index + SHARES.slots < count;
  return shared ? { ...place, multifunction: "on" } : place;
}

const diskPort = (number: number): string => `disk-port${number}`;
const nicPort = (number: number): string => `nic-port${number}`;
/** Chassis numbers of root ports are unique: a guest names slots by them. */
const NIC_CHASSIS = 100;

/** Properties for `-device`, after the driver's name. */
export const placed = (place: Place | undefined): string =>
  place === undefined
    ? ""
    : Object.entries(place)
        .map(([name, value]) => `,${name}=${value as string}`)
        .join("");

/**
 * Root ports, or the bridge. Those that hot plug needs are always there, also unused: a guest numbers the buses in their
 * order.
 * @param places of disks that the machine uses: one more than the highest
 */
export function buildPortArgs(machine: Placed, places: number): string[] {
  if (machine.layout === 0) return [];
  const board = boardOf(machine);
  const further = Math.max(0, places - 1 - DISKS.count);
  if (!board.ports) {
    const bridge = `pci-bridge,id=${BRIDGE},chassis_nr=1${placed(onRoot(board, FURTHER.slot))}`;
    return further === 0 ? [] : ["-device", bridge];
  }
  const disk = { nameOf: diskPort, chassis: 0 };
  return [
    { ...disk, slot: DISKS.slot, count: DISKS.count, first: 1 },
    { nameOf: nicPort, chassis: NIC_CHASSIS, slot: NICS.portSlot, count: NICS.count, first: 2 },
    { ...disk, slot: FURTHER.slot, count: further, first: DISKS.count + 1 },
  ].flatMap(({ nameOf, chassis, slot, count, first }) =>
    Array.from({ length: count }, (_, index) => {
      const fn = index % 8;
      const place = onRoot(board, slot + Math.floor(index / 8), fn);
      const together = fn === 0 && index + 1 < count ? { multifunction: "on" as const } : {};
      const number = first + index;
      return [
        "-device",
        `pcie-root-port,id=${nameOf(number)},chassis=${chassis + number}${placed({ ...place, ...together })}`,
      ];
    }).flat(),
  );
}
