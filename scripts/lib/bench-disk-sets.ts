/** How programs attach a guest's disks to qemu: this one, before issue 17 and now, libvirt and Proxmox VE. */
import { closeSync, openSync } from "node:fs";
import { O_DIRECT, O_RDONLY } from "node:constants";
import type { Disk, DiskBus } from "../../src/machine/types.ts";
import { buildDiskArgs } from "../../src/qemu/devices/disk.ts";
import { withDiskIo } from "../../src/qemu/disk-io.ts";
import { probeQemu } from "../../src/qemu/probe.ts";

/** A qcow2 image on a bus; numbers are unique in a guest. */
export interface BenchDisk {
  number: number;
  bus: DiskBus;
  path: string;
  /** Backing file; qcow2. */
  base?: string | undefined;
}

export const serialOf = ({ number }: Pick<BenchDisk, "number">): string => `disk-${number}`;

/** Arguments of qemu for these disks. */
type ArgumentSet = (disks: readonly BenchDisk[]) => string[];

const asDisk = ({ base, ...disk }: BenchDisk): Disk => ({
  ...disk,
  format: "qcow2",
  serial: serialOf(disk),
  backingAllowed: false,
  base: base === undefined ? undefined : { format: "qcow2", path: base },
});

const build = (disks: Disk[]): string[] =>
  buildDiskArgs({
    arch: "x86_64",
    layout: 0,
    firmware: undefined,
    kernel: { image: "", initrd: "", append: "" },
    resumed: false,
    bootLoader: undefined,
    disks,
    controllerPlaces: [],
    cdrom: undefined,
    seed: undefined,
  });

/** Numbers of the disks on one bus. */
const targetOf = (disks: readonly BenchDisk[], disk: BenchDisk): number =>
  disks.filter(({ bus }) => bus === disk.bus).indexOf(disk);

const has = (disks: readonly BenchDisk[], bus: DiskBus): boolean => disks.some((disk) => disk.bus === bus);

const libvirtStorage = (path: string, of: string, more: object = {}): object => ({
  driver: "file",
  filename: path,
  "node-name": `${of}-storage`,
  "auto-read-only": true,
  discard: "unmap",
  ...more,
});

/** As libvirt 9 writes them for `<driver name='qemu' type='qcow2'/>`, without PCI addresses. */
const libvirt: ArgumentSet = (disks) => [
  ...(has(disks, "SCSI") ? ["-device", "virtio-scsi-pci,id=scsi0"] : []),
  ...(has(disks, "AHCI") ? ["-device", "ahci,id=sata0"] : []),
  ...disks.flatMap((disk) => {
    const name = `libvirt-${disk.number + 1}`;
    const backing =
      disk.base === undefined
        ? null
        : {
            driver: "qcow2",
            "read-only": true,
            file: libvirtStorage(disk.base, `${name}-base`, { "read-only": true }),
          };
    const format = {
      "node-name": `${name}-format`,
      "read-only": false,
      driver: "qcow2",
      file: `${name}-storage`,
      backing,
    };
    const target = targetOf(disks, disk);
    const devices: Record<Exclude<DiskBus, "USB">, object> = {
      VIRT: { driver: "virtio-blk-pci" },
      SCSI: { driver: "scsi-hd", bus: "scsi0.0", channel: 0, "scsi-id": 0, lun: target },
      AHCI: { driver: "ide-hd", bus: `sata0.${target}` },
      NVME: { driver: "nvme" },
    };
    const common = { drive: `${name}-format`, id: `device-${disk.number}`, serial: serialOf(disk) };
    return [
      "-blockdev",
      JSON.stringify(libvirtStorage(disk.path, name)),
      "-blockdev",
      JSON.stringify(format),
      "-device",
      JSON.stringify({ ...devices[disk.bus as keyof typeof devices], ...common }),
    ];
  }),
];

/** Can this file be opened without the host's page cache? On tmpfs since Linux 6.6. */
export function canBeDirect(path: string): boolean {
  try {
    closeSync(openSync(path, O_RDONLY | O_DIRECT));
    return true;
  } catch {
    return false;
  }
}

/** As Proxmox VE 8 writes them: cache=none, virtio-scsi-single, a thread for each virtio disk; no discard unless asked for. */
const proxmox: ArgumentSet = (disks) => [
  ...(has(disks, "AHCI") ? ["-device", "ahci,id=ahci0,multifunction=on"] : []),
  ...disks.flatMap((disk) => {
    const name = `${disk.bus.toLowerCase()}${disk.number}`;
    const cache = canBeDirect(disk.path) ? "none" : "writeback";
    const base =
      disk.base === undefined
        ? ""
        : `,backing.driver=qcow2,backing.file.driver=file,backing.file.filename=${disk.base}`;
    const drive = `file=${disk.path},if=none,id=drive-${name},format=qcow2,cache=${cache},aio=io_uring,detect-zeroes=on${base}`;
    const common = `drive=drive-${name},id=${name},serial=${serialOf(disk)}`;
    const thread = ["-object", `iothread,id=iothread-${name}`];
    const devices: Record<Exclude<DiskBus, "USB">, string[]> = {
      VIRT: [...thread, "-device", `virtio-blk-pci,iothread=iothread-${name},${common}`],
      SCSI: [
        ...thread,
        "-device",
        `virtio-scsi-pci,id=virtio${name},iothread=iothread-${name}`,
        "-device",
        `scsi-hd,bus=virtio${name}.0,channel=0,scsi-id=0,lun=0,${common}`,
      ],
      AHCI: ["-device", `ide-hd,bus=ahci0.${targetOf(disks, disk)},${common}`],
      NVME: ["-device", `nvme,${common}`],
    };
    return ["-drive", drive, ...devices[disk.bus as keyof typeof devices]];
  }),
];

const capabilities = await probeQemu("qemu-system-x86_64", undefined);

/** `today` is as of before issue 17. */
export const SETS = {
  today: (disks) => build(disks.map(asDisk)),
  libvirt,
  proxmox,
  vm: (disks) => build(disks.map((disk) => withDiskIo(asDisk(disk), "auto", capabilities))),
} satisfies Record<string, ArgumentSet>;

export type SetName = keyof typeof SETS;
export const SET_NAMES = Object.keys(SETS) as SetName[];
