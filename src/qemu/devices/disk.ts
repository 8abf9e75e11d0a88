import { ARCH } from "../../machine/arch.ts";
import type { Disk, DiskBus, Machine } from "../../machine/types.ts";
import { escapeCommas } from "../text.ts";
import { buildImageNode, fileDriver } from "./image.ts";

/** Ports of one AHCI controller (ich9-ahci). */
const AHCI_PORTS = 6;
/** Targets of one virtio-scsi controller that firmware scans. */
const SCSI_TARGETS = 64;

/**
 * Block nodes of an image: protocol and format. JSON needs no escaping of paths. `discard` and `detect-zeroes` let the
 * guest's TRIM and zeroes shrink the image (qapi/block-core.json).
 */
function buildDiskNodes(disk: Disk, node: string): string[] {
  const common = { discard: "unmap", "detect-zeroes": "unmap" };
  // The protocol node's name identifies the disk: the format node's filename may include backing files.
  const file = {
    driver: fileDriver(disk),
    "node-name": `${node}-file`,
    filename: disk.path,
    discard: "unmap",
  };
  const format =
    disk.format === "raw"
      ? { driver: "raw", "node-name": node, ...common, file }
      : {
          driver: disk.format,
          "node-name": node,
          ...common,
          file,
          ...buildBacking(disk),
        };
  return ["-blockdev", JSON.stringify(format)];
}

function buildBacking({ format, base, backingAllowed }: Disk): object {
  if (base) return { backing: buildImageNode(base) };
  return format === "qcow2" && !backingAllowed ? { backing: null } : {};
}

/**
 * Controller and device of a disk, by its bus and its index on that bus. The device itself has the property `drive`: a
 * live snapshot sets it (qmp/block.ts).
 */
const ATTACH: Record<
  DiskBus,
  (index: number, cd: boolean) => { controller?: { id: string; device: string }; device: string }
> = {
  AHCI: (index, cd) => {
    const id = `ahci${Math.floor(index / AHCI_PORTS)}`;
    return {
      controller: { id, device: `ich9-ahci,id=${id}` },
      device: `${cd ? "ide-cd" : "ide-hd"},bus=${id}.${index % AHCI_PORTS}`,
    };
  },
  SCSI: (index, cd) => {
    const id = `scsi${Math.floor(index / SCSI_TARGETS)}`;
    return {
      controller: { id, device: `virtio-scsi-pci,id=${id}` },
      device: `${cd ? "scsi-cd" : "scsi-hd"},bus=${id}.0,scsi-id=${index % SCSI_TARGETS},lun=0`,
    };
  },
  NVME: () => ({ device: "nvme" }),
  // There is no CD device; the CD's node is read-only.
  VIRT: () => ({ device: "virtio-blk-pci" }),
};

/**
 * Is a disk hotplugged? qemu cannot load a state into a machine with an NVMe disk, and q35's root bus does not support
 * hotplug: the machine is started with a root port for it.
 */
const isHotplugged = ({ resumed }: Pick<Machine, "resumed">, { bus }: Disk): boolean =>
  resumed && bus === "NVME";

export type HotpluggedDevice = Record<"driver" | "id" | "drive" | "serial" | "bus", string>;

/** Arguments of QMP's `device_add`, after the machine's state is loaded. */
export const buildHotpluggedDevices = (machine: Pick<Machine, "resumed" | "disks">): HotpluggedDevice[] =>
  machine.disks
    .map((disk, index) => ({ disk, node: `disk${index}` }))
    .filter(({ disk }) => isHotplugged(machine, disk))
    .map(({ disk, node }, port) => ({
      driver: "nvme",
      id: `${node}-dev`,
      drive: node,
      serial: disk.serial,
      bus: `port${port}`,
    }));

/** Disks in boot order, then the CD, with `bootindex` for BIOS and UEFI; devices that are not booted last. */
export function buildDiskArgs(
  machine: Pick<Machine, "arch" | "disks" | "cdrom" | "seed" | "bootLoader" | "resumed">,
): string[] {
  const { disks, cdrom, seed } = machine;
  const { cdBus } = ARCH[machine.arch];
  const args: string[] = [];
  const counts = new Map<DiskBus, number>();
  const controllers = new Set<string>();
  const attach = (bus: DiskBus, cd: boolean, node: string[], properties: string): void => {
    const index = counts.get(bus) ?? 0;
    counts.set(bus, index + 1);
    const { controller, device } = ATTACH[bus](index, cd);
    if (controller && !controllers.has(controller.id)) {
      controllers.add(controller.id);
      args.push("-device", controller.device);
    }
    args.push(...node, "-device", `${device},${properties}`);
  };
  const firstDisk = cdrom?.first ? 2 : 1;
  const attachCd = (): void => {
    if (!cdrom) return;
    const file = { driver: fileDriver(cdrom), filename: cdrom.path, "read-only": true };
    const node = { driver: "raw", "node-name": "cd0", "read-only": true, file };
    const bootindex = cdrom.first ? 1 : firstDisk + disks.length;
    attach(cdBus, true, ["-blockdev", JSON.stringify(node)], `id=cd0-dev,drive=cd0,bootindex=${bootindex}`);
  };
  // A boot loader ignores bootindex, and boots in bus order.
  const cdInFront = machine.bootLoader !== undefined && cdrom?.first === true;
  if (cdInFront) attachCd();
  let ports = 0;
  disks.forEach((disk, index) => {
    const node = `disk${index}`;
    if (isHotplugged(machine, disk)) {
      const port = `pcie-root-port,id=port${ports},chassis=${++ports}`;
      args.push(...buildDiskNodes(disk, node), "-device", port);
      return;
    }
    const properties = `id=${node}-dev,drive=${node},serial=${escapeCommas(disk.serial)},bootindex=${firstDisk + index}`;
    attach(disk.bus, false, buildDiskNodes(disk, node), properties);
  });
  if (!cdInFront) attachCd();
  if (seed !== undefined) {
    const node = { ...buildImageNode({ format: "raw", path: seed }), "node-name": "seed0" };
    args.push("-blockdev", JSON.stringify(node));
    // Cloud kernels have virtio drivers, and often none for AHCI.
    args.push("-device", "virtio-blk-pci,id=seed0-dev,drive=seed0,serial=seed");
  }
  return args;
}
