import type { NetworkRequest } from "./network.ts";
import type { SmbiosTable } from "./smbios.ts";

/** `gz`: whole disks by pigz. `qcow2`: compressed images, which may be changes to another snapshot's. */
export const SNAPSHOT_FORMATS = ["gz", "qcow2"] as const;
export type SnapshotFormat = (typeof SNAPSHOT_FORMATS)[number];

/** A disk's bus, as users write it in `DISKS` and `IMAGES`. */
export const DISK_BUSES = ["AHCI", "NVME", "SCSI", "USB", "VIRT"] as const;
export type DiskBus = (typeof DISK_BUSES)[number];

/** How qemu reads and writes a disk's image (qapi/block-core.json, BlockdevAioOptions). */
export const AIOS = ["io_uring", "native", "threads"] as const;
export type Aio = (typeof AIOS)[number];

/** The setting for it. */
export const DISK_AIOS = ["auto", "io_uring", "threads"] as const;
export type DiskAio = (typeof DISK_AIOS)[number];

export const IMAGE_FORMATS = ["qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc", "qed"] as const;
export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/** Numbers of layouts, as guest.env records them. */
export const LAYOUTS = [0, 1, 2] as const;
export type Layout = (typeof LAYOUTS)[number];

/** Guest architectures; their facts are in `arch.ts`. */
export const ARCHES = ["x86_64", "i386", "aarch64", "armhf", "riscv64", "ppc64le"] as const;
export type Arch = (typeof ARCHES)[number];

/** One entry of `DISKS`: a disk to create. */
export interface DiskRequest {
  bus: DiskBus;
  sizeBytes: number;
}

/** One entry of `IMAGES`, as written: `path` may be relative and start with a macro. */
export interface ImageRequest {
  bus: DiskBus;
  format: ImageFormat | undefined;
  path: string;
}

/** One entry of `SHARES`, as written. */
export interface ShareRequest {
  tag: string;
  writable: boolean;
  path: string;
}

/** An image that is only read. */
export interface ReadImage {
  format: ImageFormat;
  /** Absolute. */
  path: string;
  /** A block device of the host, not a file. */
  blockDevice?: boolean;
  /** Its backing file, which overrides the name in its header. */
  base?: ReadImage | undefined;
}

export interface Disk {
  /** Unique in a machine: decides its place, its name in qemu and its serial number. */
  number: number;
  bus: DiskBus;
  format: ImageFormat;
  /** Absolute. */
  path: string;
  /** Visible to the guest; unique in a machine. */
  serial: string;
  /** False: a backing file named in the header is refused. */
  backingAllowed: boolean;
  /** Its backing file, which overrides the name in its header. */
  base?: ReadImage | undefined;
  /** A block device of the host, not a file. */
  blockDevice?: boolean;
  /** Its backing file may go away: the guest is paused then, rather than shown an error. */
  pausesOnError?: boolean;
  /** Absent: by a pool of threads, qemu's default. */
  aio?: Exclude<Aio, "threads"> | undefined;
}

/** The recorded place of a controller that disks share: another than that of the lowest of its disks. */
export interface ControllerPlace {
  /** As in qemu: `scsi0` */
  controller: string;
  /** A number of disks. */
  place: number;
}

export interface Share {
  tag: string;
  /** Absolute. */
  path: string;
  writable: boolean;
  /** 9p security model: with `mapped-file` the guest cannot create real device nodes and setuid files. */
  security: "none" | "mapped-file";
}

/** What a network card is connected to. */
export type NicNetwork = Pick<NetworkRequest, "kind" | "name" | "outside">;

export interface Nic {
  /** From 1; decides its place. */
  number: number;
  /** Absent: qemu's own address, the same in all machines. */
  mac: string | undefined;
  link: "up" | "down";
  network: NicNetwork;
  /** Options of FORWARDS; of passt `hostfwd=` rules only. */
  forwards: string[];
  /** Of a network among VMs: a pipe that qemu holds open, as a member. Absolute. */
  lifeline?: string;
  /** After a migration the guest is not asked to announce its address (VIRTIO_NET_F_GUEST_ANNOUNCE). */
  announced?: false;
}

/** When a machine boots from the network, by its first card. */
export const NETBOOT_ORDERS = ["last", "first", "off"] as const;

export interface Netboot {
  /** Relative to the CD and the disks. */
  order: (typeof NETBOOT_ORDERS)[number];
  /** Of the files that qemu's TFTP server offers; absolute. */
  directory: string | undefined;
  /** The file to boot: in that directory, or a URL. */
  file: string | undefined;
}

/** UEFI firmware: read-only code, and variables of this machine. */
export interface Firmware {
  code: { path: string; format: string };
  vars: { path: string; format: string };
  /** Its code runs in system management mode, in which alone the variables can be written. */
  smm: boolean;
}

/** A TPM 2.0, which swtpm emulates. */
export interface Tpm {
  /** qemu's device. */
  device: string;
  /** Where swtpm listens, relative to WORKDIR; absent: qemu inherits the connection. */
  socket?: string;
}

/** The file that is a guest's RAM. */
export interface RamFile {
  /** Absolute; `/proc/self/fd/N`: a descriptor that qemu inherits. */
  path: string;
  /** The guest writes to the file. False: it gets a private copy of each page that it writes, and the file stays as it is. */
  shared: boolean;
}

export type Display =
  /** A graphics card without a viewer. */
  | { kind: "none" }
  /** No graphics card, only the serial console. */
  | { kind: "serial" }
  | SharedDisplay;

/** Where a display listens: a TCP address, or a unix socket that only its owner can open. */
export type DisplayAddress = { host: string; port: number } | { socket: string };

/** What a client needs to verify a server's certificate. */
export interface DisplayTls {
  /** Directory with `ca-cert.pem`, `server-cert.pem` and `server-key.pem`. */
  directory: string;
  /** PEM. */
  ca: string;
  /** Subject in the form that viewers compare: `O=Example,CN=host`. */
  subject: string;
}

/** A display that a viewer can connect to. */
export interface SharedDisplay {
  kind: "spice" | "vnc";
  at: DisplayAddress;
  /** Absent: no password. */
  passwordFile: string | undefined;
  /** SPICE on TCP only: the port accepts TLS connections only. */
  tls: DisplayTls | undefined;
}

/** A machine with ports, paths and firmware resolved: the input of the argument list. */
export interface Machine {
  name: string;
  arch: Arch;
  /** How devices are placed on the PCI bus: 0: by qemu; from 1: qemu/layout.ts. */
  layout: Layout;
  /** Shown to the guest (DMI product UUID); absent: qemu's default. */
  uuid: string | undefined;
  accel: "kvm" | "tcg";
  cpu: string;
  sockets: number;
  cores: number;
  memoryMiB: number;
  /** [compat] Further options of qemu's -smp and -m, as written after CORES and MEMORY. */
  cpuOptions?: string;
  memoryOptions?: string;
  /** Absent: memory of qemu's own, which cannot be saved apart from its device state. */
  ram: RamFile | undefined;
  /** Absent for BIOS. */
  firmware: Firmware | undefined;
  tpm: Tpm | undefined;
  /** In boot order. */
  disks: Disk[];
  controllerPlaces: readonly ControllerPlace[];
  /** The CD; `first`: booted before the disks. */
  cdrom: { path: string; first: boolean; blockDevice?: boolean } | undefined;
  /** Data for cloud-init: a read-only disk after the others, never booted. */
  seed: string | undefined;
  nics: Nic[];
  netboot: Netboot;
  shares: Share[];
  display: Display;
  /** Kernel that qemu boots directly, instead of firmware and a disk. */
  kernel: { image: string; initrd: string; append: string } | undefined;
  /** Boot loader of an architecture without a BIOS (`ArchFacts.bootLoaders`); absolute. */
  bootLoader: string | undefined;
  /** Resumes a saved state: started with -incoming, waits for the state on QMP. */
  resumed: boolean;
  /** UUID or `auto`: of the VM generation ID device, by which the kernel of a copy reseeds its random numbers. */
  generationId: string | undefined;
  /** Fields of the firmware's SMBIOS tables. */
  smbios: SmbiosTable[];
  /** Device by which the guest's kernel reports a panic; absent if qemu has none for this machine. */
  panicDevice: "pvpanic" | "pvpanic-pci" | undefined;
  /** Channels to programs in the guest: virtio-serial ports by name, each on a socket. */
  channels: { name: string; socket: string }[];
  /** Sockets and logs for qemu to open; `events` without its suffixes, absent if they are not read. */
  files: {
    qmp: string;
    monitor: string;
    /** QMP for a live snapshot; absent if there will be none. */
    backup?: string;
    console: string;
    consoleLog: string;
    events?: string;
  };
  /** qemu exits on a guest reset (end of an installer, kernel panic). */
  endOnReset: boolean;
  /** From `PROG.defaults`, after everything else. */
  extraArgs: string[];
}
