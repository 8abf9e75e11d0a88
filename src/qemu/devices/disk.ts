import type { Disk, DiskBus, Machine } from "../../machine/types.ts";
import { escapeCommas } from "../text.ts";
import { buildImageNode, fileDriver } from "./image.ts";

/** Ports of one AHCI controller (ich9-ahci). */
const AHCI_PORTS = 6;
/** Targets of one virtio-scsi controller that firmware looks at. */
const SCSI_TARGETS = 64;

/**
 * The block nodes of an image: the file, and its format over it. JSON takes any path as it is.
 * `discard` and `detect-zeroes` let the guest's TRIM and zeroes shrink the image (qapi/block-core.json).
 */
function buildDiskNodes(disk: Disk, node: string): string[] {
  const common = { discard: "unmap", "detect-zeroes": "unmap" };
  // By the file's node its disk is found again: a name of the format's may hold the images below, too.
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

/** How a disk of each bus is attached: its own device, and the controller it needs, by its place on the bus. */
const ATTACH: Record<
  DiskBus,
  (index: number) => { controller?: { id: string; device: string }; device: string }
> = {
  AHCI: (index) => {
    const id = `ahci${Math.floor(index / AHCI_PORTS)}`;
    return {
      controller: { id, device: `ich9-ahci,id=${id}` },
      device: `ide-hd,bus=${id}.${index % AHCI_PORTS}`,
    };
  },
  SCSI: (index) => {
    const id = `scsi${Math.floor(index / SCSI_TARGETS)}`;
    return {
      controller: { id, device: `virtio-scsi-pci,id=${id}` },
      device: `scsi-hd,bus=${id}.0,scsi-id=${index % SCSI_TARGETS},lun=0`,
    };
  },
  NVME: () => ({ device: "nvme" }),
  VIRT: () => ({ device: "virtio-blk-pci" }),
};

/** Disks in boot order, then the CD, with `bootindex` for both firmwares; what is not booted comes last. */
export function buildDiskArgs(machine: Pick<Machine, "disks" | "cdrom" | "seed">): string[] {
  const { disks, cdrom, seed } = machine;
  const args: string[] = [];
  const counts: Record<DiskBus, number> = { AHCI: 0, NVME: 0, SCSI: 0, VIRT: 0 };
  const controllers = new Set<string>();
  const controller = (wanted: { id: string; device: string } | undefined): void => {
    if (!wanted || controllers.has(wanted.id)) return;
    controllers.add(wanted.id);
    args.push("-device", wanted.device);
  };
  const firstDisk = cdrom?.first ? 2 : 1;
  disks.forEach((disk, index) => {
    const attached = ATTACH[disk.bus](counts[disk.bus]++);
    const node = `disk${index}`;
    controller(attached.controller);
    args.push(...buildDiskNodes(disk, node));
    args.push(
      "-device",
      `${attached.device},id=${node}-dev,drive=${node},serial=${escapeCommas(disk.serial)},bootindex=${firstDisk + index}`,
    );
  });
  if (cdrom) {
    const attached = ATTACH.AHCI(counts.AHCI);
    const slot = attached.device.slice(attached.device.indexOf("bus="));
    controller(attached.controller);
    const file = { driver: fileDriver(cdrom), filename: cdrom.path, "read-only": true };
    args.push("-blockdev", JSON.stringify({ driver: "raw", "node-name": "cd0", "read-only": true, file }));
    const bootindex = cdrom.first ? 1 : firstDisk + disks.length;
    args.push("-device", `ide-cd,${slot},id=cd0-dev,drive=cd0,bootindex=${bootindex}`);
  }
  if (seed !== undefined) {
    const node = { ...buildImageNode({ format: "raw", path: seed }), "node-name": "seed0" };
    args.push("-blockdev", JSON.stringify(node));
    // Kernels made for clouds know no AHCI, but all of them know virtio.
    args.push("-device", "virtio-blk-pci,id=seed0-dev,drive=seed0,serial=seed");
  }
  return args;
}
