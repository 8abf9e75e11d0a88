import { ARCH } from "../machine/arch.ts";
import { MAX_NICS } from "../machine/network.ts";
import type { Machine } from "../machine/types.ts";

/**
 * Layouts 1 and 2: the PCI place of each device of a machine. A guest derives names from it, as of network interfaces: a place
 * never changes, and does not depend on which other devices there are. In layout 0 qemu places the devices, in order of
 * the arguments.
 */

/** Machine facts that decide places. */
export type Placed = Pick<Machine, "arch" | "kernel" | "resumed" | "layout"> & {
  /** Absent for BIOS. */
  firmware: object | undefined;
};

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

/** PCI slots on a PC, by firmware, for the manual. */
export const describeSlot = (role: Role): { bios: number; uefi: number } => ({
  bios: BOARDS.pc.first + SLOTS[role],
  uefi: BOARDS.q35.first + SLOTS[role],
});

const SHARES = { slot: 4, slots: 4 };
/** The disks behind the first one: a slot each, further ones behind a bridge; or root ports, eight in a slot. */
const DISKS = { slot: 14, count: 8, bridge: 26, behind: 31, ports: 15 };
/** The cards behind the first one: a slot each, or root ports. */
const NICS = { slot: 22, ports: 14, count: MAX_NICS - 1 };
/** Unused root ports for disks that are plugged in while the guest runs. Each costs UEFI firmware time. */
const SPARE_PORTS = 4;

/** Number of places of each kind. */
export const PLACES = {
  disks: 1 + DISKS.count + DISKS.behind,
  nics: MAX_NICS,
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

/** Properties for `-device`, after the driver's name. */
export const placed = (place: Place | undefined): string =>
  place === undefined
    ? ""
    : Object.entries(place)
        .map(([name, value]) => `,${name}=${value as string}`)
        .join("");

/**
 * Root ports, or the bridge. A guest numbers the buses behind ports in their order: cards' are a fixed number, and come first.
 * @param places of disks that the machine uses: one more than the highest
 */
export function buildPortArgs(machine: Placed, places: number): string[] {
  if (machine.layout === 0) return [];
  const board = boardOf(machine);
  if (!board.ports) {
    const bridge = `pci-bridge,id=${BRIDGE},chassis_nr=1${placed(onRoot(board, DISKS.bridge))}`;
    return places <= 1 + DISKS.count ? [] : ["-device", bridge];
  }
  const disks = Math.min(places - 1 + SPARE_PORTS, PLACES.disks - 1);
  return [
    ...buildPortRow(board, NICS.ports, NICS.count, (index) => ({
      id: nicPort(2 + index),
      chassis: 100 + index,
    })),
    ...buildPortRow(board, DISKS.ports, disks, (index) => ({ id: diskPort(1 + index), chassis: 1 + index })),
  ];
}

/** @param name the port's id and its chassis, by which guests name slots: both unique */
function buildPortRow(
  board: Board,
  slot: number,
  count: number,
  name: (index: number) => { id: string; chassis: number },
): string[] {
  return Array.from({ length: count }, (_, index) => {
    const fn = index % 8;
    const together = fn === 0 && index + 1 < count ? { multifunction: "on" as const } : {};
    const { id, chassis } = name(index);
    const place = { ...onRoot(board, slot + Math.floor(index / 8), fn), ...together };
    return ["-device", `pcie-root-port,id=${id},chassis=${chassis}${placed(place)}`];
  }).flat();
}
