import { ARCH, type ArchFacts } from "../../machine/arch.ts";
import {
  DISK_BUSES,
  type ControllerPlace,
  type Disk,
  type DiskBus,
  type Machine,
} from "../../machine/types.ts";
import { boardOf, placed, placeOf, placeOfDisk, PLACES, type Place, type Placed } from "../layout.ts";
import { deviceText, type Device } from "../text.ts";
import { buildImageNode, buildUnreliableNode, fileDriver } from "./image.ts";

/** Ports of one AHCI controller (ich9-ahci). */
const AHCI_PORTS = 6;
/** Targets of one virtio-scsi controller that firmware scans. */
const SCSI_TARGETS = 64;
/** Ports of the USB controller (the most that qemu-xhci has). The first two are for the pointer and the keyboard. */
export const USB = { ports: 15, firstDisk: 3 } as const;

/** The guest's TRIM and zeroes shrink the image (qapi/block-core.json). */
const UNMAP = { discard: "unmap", "detect-zeroes": "unmap" } as const;

/** Block nodes of an image: protocol and format. JSON needs no escaping of paths. */
function buildDiskNode(disk: Disk): Record<string, unknown> {
  const node = nodeOf(disk);
  // The protocol node's name identifies the disk: the format node's filename may include backing files.
  const file = {
    driver: fileDriver(disk),
    "node-name": `${node}-file`,
    filename: disk.path,
    discard: "unmap",
    ...(disk.aio && { aio: disk.aio }),
    // qemu's condition for native requests. Not of the format node: backing files would inherit it.
    ...(disk.aio === "native" && { cache: { direct: true } }),
  };
  const backing = disk.format === "raw" ? {} : buildBacking(disk);
  return { driver: disk.format, "node-name": node, ...UNMAP, file, ...backing };
}

/**
 * A qcow2 disk of a running machine as `blockdev-reopen` takes it: as it is, but for its backing file.
 * @param backing node of the backing file
 */
export const buildReopenedDisk = (number: number, backing: string | null) => ({
  driver: "qcow2" as const,
  "node-name": nodeOf({ number }),
  "read-only": false,
  ...UNMAP,
  file: `${nodeOf({ number })}-file`,
  backing,
});

function buildBacking({ format, base, backingAllowed, pausesOnError, number }: Disk): object {
  if (base) return { backing: pausesOnError ? nameBase({ number }, 0) : buildImageNode(base) };
  return format === "qcow2" && !backingAllowed ? { backing: null } : {};
}

/** Node of a backing file that can be exchanged. @param time each has another */
export const nameBase = (disk: Pick<Disk, "number">, time: number): string => `${nodeOf(disk)}${BASE}${time}`;
export const isBase = (node: string): boolean => node.includes(BASE);
const BASE = "-base-";

interface Attached {
  controller?: Device & { id: string };
  device: Device;
}

/**
 * Controller and device of a disk on that bus. The device itself has the property `drive`: a live snapshot sets it
 * (qmp/block.ts).
 * @param index on the bus
 * @param serial of the disk
 */
const ATTACH: Record<DiskBus, (index: number, cd: boolean, serial: string) => Attached> = {
  AHCI: (index, cd) => {
    const id = `ahci${Math.floor(index / AHCI_PORTS)}`;
    return {
      controller: { driver: "ich9-ahci", id },
      device: { driver: cd ? "ide-cd" : "ide-hd", bus: `${id}.${index % AHCI_PORTS}` },
    };
  },
  SCSI: (index, cd) => {
    const id = `scsi${Math.floor(index / SCSI_TARGETS)}`;
    return {
      controller: { driver: "virtio-scsi-pci", id },
      device: {
        driver: cd ? "scsi-cd" : "scsi-hd",
        bus: `${id}.0`,
        "scsi-id": index % SCSI_TARGETS,
        lun: 0,
      },
    };
  },
  NVME: () => ({ device: { driver: "nvme" } }),
  // The stick is a bridge with one SCSI disk.
  USB: (index, _cd, serial) => {
    const id = `usb-disk${index}`;
    const port = USB.firstDisk + index;
    return {
      controller: { driver: "usb-bot", id, bus: "usb0.0", port, serial },
      device: { driver: "scsi-hd", bus: `${id}.0` },
    };
  },
  // There is no CD device; the CD's node is read-only.
  VIRT: () => ({ device: { driver: "virtio-blk-pci" } }),
};

/** Buses on which a disk can be plugged in and out while the guest runs. */
const HOT_PLUG: Record<DiskBus, boolean> = {
  AHCI: false,
  NVME: true,
  SCSI: true,
  USB: false,
  VIRT: true,
};

/**
 * Is a disk hotplugged? qemu cannot load a state into a machine with an NVMe disk, and q35's root bus does not support
 * hotplug: the machine is started with a root port for it.
 */
const isHotplugged = ({ resumed }: Pick<Machine, "resumed">, { bus }: Disk): boolean =>
  resumed && bus === "NVME";

export type HotpluggedDevice = Record<"driver" | "id" | "drive" | "serial" | "bus", string>;

/** Block node of a disk. */
export const nodeOf = ({ number }: Pick<Disk, "number">): string => `disk${number}`;
/** A disk's device, by its block node. */
export const deviceOf = (node: string): string => `${node}-dev`;

const identify = (disk: Disk): Record<"id" | "drive" | "serial", string> => ({
  id: deviceOf(nodeOf(disk)),
  drive: nodeOf(disk),
  serial: disk.serial,
});

/** Arguments of QMP's `device_add`, after the machine's state is loaded. */
export const buildHotpluggedDevices = (machine: Pick<Machine, "resumed" | "disks">): HotpluggedDevice[] =>
  machine.disks
    .filter((disk) => isHotplugged(machine, disk))
    .map((disk, port) => ({
      driver: "nvme",
      ...identify(disk),
      bus: `port${port}`,
    }));

/**
 * The bus of a disk of a running machine, by its device's driver; USB sticks have one more device.
 * @param devices drivers of all devices, by their ids
 */
export function busOfDevice(node: string, devices: ReadonlyMap<string, string>): DiskBus | undefined {
  const driver = devices.get(deviceOf(node));
  const number = Number(/^disk(\d+)$/.exec(node)?.[1]);
  const fitting = DISK_BUSES.filter((bus) => {
    const { controller, device } = ATTACH[bus](number, false, "");
    return device.driver === driver && (controller === undefined || devices.has(controller.id));
  });
  return fitting.find((bus) => bus === "USB") ?? fitting[0];
}

type DiskMachine = Placed & Pick<Machine, "disks" | "controllerPlaces" | "cdrom" | "seed" | "bootLoader">;

export type NumberedDisk = Pick<Disk, "bus" | "number">;
export interface NumberedDisks {
  disks: readonly NumberedDisk[];
  controllerPlaces: readonly ControllerPlace[];
}

/**
 * Place of a controller's or a disk's PCI device; a controller's is the recorded one, else the lowest number of the disks
 * on it. None for a USB disk.
 */
function placeNumber(
  { disks, controllerPlaces }: NumberedDisks,
  { bus, number }: NumberedDisk,
): number | undefined {
  if (bus === "USB") return undefined;
  const on = (index: number): string | undefined => ATTACH[bus](index, false, "").controller?.id;
  const id = on(number);
  if (id === undefined) return number;
  const recorded = controllerPlaces.find(({ controller }) => controller === id);
  if (recorded) return recorded.place;
  const first = Math.min(
    ...disks.filter((disk) => disk.bus === bus && on(disk.number) === id).map((disk) => disk.number),
  );
  // Only with more than 64 SCSI disks.
  return first < PLACES.disks ? first : PLACES.disks - Math.floor(number / SCSI_TARGETS);
}

/**
 * Which places to record so that each controller stays where it is when the disks change.
 * @returns those that differ from the lowest number of the controller's disks
 */
export function keepControllerPlaces(
  before: NumberedDisks,
  disks: readonly NumberedDisk[],
): ControllerPlace[] {
  const kept = new Map<string, number>();
  for (const disk of disks) {
    const id = controllerOf(disk);
    const former = before.disks.find((one) => id !== undefined && controllerOf(one) === id);
    const place = former && placeNumber(before, former);
    if (id === undefined || place === undefined) continue;
    if (place !== placeNumber({ disks, controllerPlaces: [] }, disk)) kept.set(id, place);
  }
  return [...kept].map(([controller, place]) => ({ controller, place }));
}

/** A disk that is plugged into a running machine, as `blockdev-add` and `device_add` take it. */
export interface PluggedDisk {
  node: Record<string, unknown> & { "node-name": string };
  /** To be plugged in before, unless the machine has it. */
  controller: (Device & { id: string }) | undefined;
  device: Device & { id: string };
}

/**
 * A disk of layout 1 at the place that it will have after the next start. Without bootindex: the CD drive has the next
 * one, and each is unique.
 * @param machine with this disk
 * @returns undefined if its bus has no hot plug
 */
export function buildPluggedDisk(machine: Placed & NumberedDisks, disk: Disk): PluggedDisk | undefined {
  if (machine.layout === 0 || !HOT_PLUG[disk.bus]) return undefined;
  const number = placeNumber(machine, disk);
  const place = number === undefined ? undefined : placeOfDisk(machine, number);
  const { controller, device } = ATTACH[disk.bus](disk.number, false, disk.serial);
  return {
    node: { ...buildDiskNode(disk), "node-name": nodeOf(disk) },
    controller: controller && { ...controller, ...place },
    device: { ...device, ...(controller ? {} : place), ...identify(disk) },
  };
}

/**
 * Has a running machine a place for another disk? Numbers behind those of its start have no port or bridge.
 * @param devices ids of its devices
 */
export function hasPlaceFor(
  machine: Placed & NumberedDisks,
  disk: NumberedDisk,
  devices: ReadonlySet<string>,
): boolean {
  if (!HOT_PLUG[disk.bus] || machine.layout === 0) return true;
  const controller = controllerOf(disk);
  if (controller !== undefined && devices.has(controller)) return true;
  const place = placeOfDisk(machine, placeNumber(machine, disk)!)!;
  return place.bus === boardOf(machine).bus ? disk.number > 0 : devices.has(place.bus);
}

/** The controllers that disks on this bus share, by the start of their ids. */
export const controllerOf = ({ bus, number }: NumberedDisk): string | undefined =>
  ATTACH[bus](number, false, "").controller?.id;

/** One more than the highest place that the disks use. */
export const countPlaces = (machine: NumberedDisks): number =>
  Math.max(0, ...machine.disks.map((disk) => (placeNumber(machine, disk) ?? -1) + 1));

/** The USB controller, if the machine needs it: for disks, and for devices with which a viewer points and types. */
export function buildUsbArgs(machine: Placed & Pick<Machine, "disks" | "display">): string[] {
  const { arch, disks, display } = machine;
  const facts: ArchFacts = ARCH[arch];
  const hasDisks = disks.some(({ bus }) => bus === "USB");
  const seen = display.kind !== "serial";
  const ports = hasDisks ? `,p2=${USB.ports},p3=${USB.ports}` : "";
  return [
    ...(seen || hasDisks ? ["-device", `qemu-xhci,id=usb0${ports}${placed(placeOf(machine, "usb"))}`] : []),
    // Absolute positions, so that a viewer's pointer and the guest's agree.
    ...(seen ? ["-device", "usb-tablet,bus=usb0.0"] : []),
    ...(seen && facts.usbKeyboard ? ["-device", "usb-kbd,bus=usb0.0"] : []),
  ];
}

/** Disks in boot order, then the CD, with `bootindex` for BIOS and UEFI; devices that are not booted last. */
export function buildDiskArgs(machine: DiskMachine): string[] {
  const { disks, cdrom, seed, layout } = machine;
  const args: string[] = [];
  const counts = new Map<DiskBus, number>();
  const controllers = new Set<string>();
  /** [compat] In layout 0 the index on a bus is the position in boot order, in layout 1 the disk's number. */
  const attach = (
    { controller, device }: Attached,
    place: Place | undefined,
    node: object | undefined,
    properties: Omit<Device, "driver">,
  ): void => {
    if (controller && !controllers.has(controller.id)) {
      controllers.add(controller.id);
      args.push("-device", deviceText({ ...controller, ...place }));
    }
    if (node) args.push("-blockdev", JSON.stringify(node));
    args.push("-device", deviceText({ ...device, ...(controller ? {} : place), ...properties }));
  };
  const count = (bus: DiskBus): number => {
    const index = counts.get(bus) ?? 0;
    counts.set(bus, index + 1);
    return index;
  };
  const firstDisk = cdrom?.first ? 2 : 1;
  const attachCd = (): void => {
    const node = cdrom && buildCdNode(cdrom);
    const bootindex = cdrom?.first ? 1 : firstDisk + disks.length;
    const properties = { id: CD_DEVICE, ...(cdrom ? { drive: CD_NODES[0], bootindex } : {}) };
    if (layout === 0) {
      const { cdBus } = ARCH[machine.arch];
      if (cdrom) attach(ATTACH[cdBus](count(cdBus), true, ""), undefined, node, properties);
      return;
    }
    const drive = cdDriveOf(machine);
    if (cdrom || drive.removable) attach(drive, drive.place, node, properties);
  };
  // A boot loader ignores bootindex, and boots in bus order.
  const cdInFront = machine.bootLoader !== undefined && cdrom?.first === true;
  if (cdInFront) attachCd();
  let ports = 0;
  disks.forEach((disk, index) => {
    if (disk.base && disk.pausesOnError) {
      const base = { ...buildUnreliableNode(disk.base), "node-name": nameBase(disk, 0) };
      args.push("-blockdev", JSON.stringify(base));
    }
    const node = buildDiskNode(disk);
    if (isHotplugged(machine, disk)) {
      const port = `pcie-root-port,id=port${ports},chassis=${++ports}`;
      args.push("-blockdev", JSON.stringify(node), "-device", port);
      return;
    }
    const onBus = layout === 0 ? count(disk.bus) : disk.number;
    const number = placeNumber(machine, disk);
    const place = number === undefined ? undefined : placeOfDisk(machine, number);
    attach(ATTACH[disk.bus](onBus, false, disk.serial), place, node, {
      ...identify(disk),
      // A write may have to read, too: the rest of a block.
      ...(disk.pausesOnError && { rerror: "stop", werror: "stop" }),
      bootindex: firstDisk + index,
    });
  });
  if (!cdInFront) attachCd();
  if (seed !== undefined) {
    const node = { ...buildImageNode({ format: "raw", path: seed }), "node-name": "seed0" };
    args.push("-blockdev", JSON.stringify(node));
    // Cloud kernels have virtio drivers, and often none for AHCI.
    const place = placed(placeOf(machine, "seed"));
    args.push("-device", `virtio-blk-pci,id=seed0-dev,drive=seed0,serial=seed${place}`);
  }
  return args;
}

/** The CD drive. */
export const CD_DEVICE = "cd0-dev";
/** Names of a CD's block node: a new CD is opened before the old one is taken out. */
export const CD_NODES = ["cd0", "cd1"] as const;

/** Read-only block node of a CD in the drive. */
export const buildCdNode = (
  cd: { path: string; blockDevice?: boolean },
  node: string = CD_NODES[0],
): Record<string, unknown> => ({
  driver: "raw",
  "node-name": node,
  "read-only": true,
  file: { driver: fileDriver(cd), filename: cd.path, "read-only": true },
});

/**
 * The CD drive in layout 1: on the board's own controller, else on one of its own, which depends on no disk.
 * `removable`: it may be empty, and its CD changed.
 */
export function cdDriveOf(machine: DiskMachine): Attached & { place: Place | undefined; removable: boolean } {
  const { ide } = boardOf(machine);
  if (ide !== undefined) return { device: { driver: "ide-cd", bus: ide }, place: undefined, removable: true };
  if (ARCH[machine.arch].cdBus === "SCSI") {
    const controller = { driver: "virtio-scsi-pci", id: "cd-scsi" };
    const device = { driver: "scsi-cd", bus: "cd-scsi.0" };
    return { controller, device, place: placeOf(machine, "cd"), removable: true };
  }
  // Without a CD device: a read-only disk.
  const place = placeOf(machine, machine.cdrom?.first ? "firstCd" : "cd");
  return { device: { driver: "virtio-blk-pci" }, place, removable: false };
}
