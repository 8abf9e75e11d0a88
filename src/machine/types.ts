/** `gz`: whole disks by pigz. `qcow2`: compressed images, which may be changes to another snapshot's. */
export const SNAPSHOT_FORMATS = ["gz", "qcow2"] as const;
export type SnapshotFormat = (typeof SNAPSHOT_FORMATS)[number];

/** A disk's bus, as users write it in `DISKS` and `IMAGES`. */
export const DISK_BUSES = ["AHCI", "NVME", "SCSI", "VIRT"] as const;
export type DiskBus = (typeof DISK_BUSES)[number];

export const IMAGE_FORMATS = ["qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc", "qed"] as const;
export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/** Guest architectures; their facts stand in `arch.ts`. */
export const ARCHES = ["x86_64", "i386", "aarch64", "armhf", "riscv64", "ppc64le"] as const;
export type Arch = (typeof ARCHES)[number];

/** One entry of `DISKS`: a disk to create. */
export interface DiskRequest {
  bus: DiskBus;
  sizeBytes: number;
}

/** One entry of `IMAGES`, as written: `path` may hold macros and be relative. */
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
  /** The image that it lies over, which counts whatever its own claim is. */
  base?: ReadImage | undefined;
}

export interface Disk {
  bus: DiskBus;
  format: ImageFormat;
  /** Absolute. */
  path: string;
  /** Shown to the guest; differs for each disk of a machine. */
  serial: string;
  /** False: the image's own claim to a backing file is not believed. */
  backingAllowed: boolean;
  /** The image it lies over, which counts whatever its own claim is. */
  base?: ReadImage | undefined;
  /** A block device of the host, not a file. */
  blockDevice?: boolean;
}

export interface Share {
  tag: string;
  /** Absolute. */
  path: string;
  writable: boolean;
  /** 9p's security model: `mapped-file` keeps the guest from making real device nodes and setuid files. */
  security: "none" | "mapped-file";
}

/** A UEFI firmware: read-only code and this machine's own variables. */
export interface Firmware {
  code: { path: string; format: string };
  vars: { path: string; format: string };
}

export type Display =
  /** A graphics card that nobody looks at. */
  | { kind: "none" }
  /** No graphics card at all: the serial console alone. */
  | { kind: "serial" }
  | SharedDisplay;

/** Where a screen is shown: a TCP address, or a socket that only its owner can open. */
export type DisplayAddress = { host: string; port: number } | { socket: string };

/** What a client needs to believe a server's certificate, and where that is. */
export interface DisplayTls {
  /** Holds `ca-cert.pem`, `server-cert.pem` and `server-key.pem`. */
  directory: string;
  /** PEM. */
  ca: string;
  /** As viewers compare it: `O=Example,CN=host`. */
  subject: string;
}

/** A screen that a viewer may open. */
export interface SharedDisplay {
  kind: "spice" | "vnc";
  at: DisplayAddress;
  /** Absent when no password is asked for. */
  passwordFile: string | undefined;
  /** SPICE by TCP only: nothing unencrypted is spoken on the port. */
  tls: DisplayTls | undefined;
}

/** Everything qemu is told about a machine; ports, paths and firmware are settled. */
export interface Machine {
  name: string;
  arch: Arch;
  accel: "kvm" | "tcg";
  cpu: string;
  sockets: number;
  cores: number;
  memoryMiB: number;
  /** [compat] Further options of qemu's -smp and -m, as written behind CORES and MEMORY. */
  cpuOptions?: string;
  memoryOptions?: string;
  /** Absent for BIOS. */
  firmware: Firmware | undefined;
  /** In boot order. */
  disks: Disk[];
  /** The CD; `first`: booted before the disks. */
  cdrom: { path: string; first: boolean; blockDevice?: boolean } | undefined;
  /** A volume that tells cloud-init what to do: a disk behind the others, only read, never booted. */
  seed: string | undefined;
  /** User-mode network card with its `hostfwd=`/`guestfwd=` rules; absent without a first card. */
  network: { forwards: string[] } | undefined;
  shares: Share[];
  display: Display;
  /** Booted by qemu itself instead of by firmware from a disk. */
  kernel: { image: string; initrd: string; append: string } | undefined;
  /** A boot loader where this architecture has no BIOS (`ArchFacts.bootLoaders`); absolute. */
  bootLoader: string | undefined;
  /** Goes on from a state that was saved of a machine booted from a kernel: waits for it on QMP. */
  resumed: boolean;
  /** A device by which the guest's kernel learns that it is a copy, and reseeds its random numbers. */
  generationId: boolean;
  /** Lines to and from programs in the guest: virtio-serial ports by name, each on a socket. */
  channels: { name: string; socket: string }[];
  /** Sockets and logs, as qemu is to open them; `events` without its endings, absent where nobody reads them. */
  files: {
    qmp: string;
    monitor: string;
    /** QMP for long work; absent where there will be none. */
    backup?: string;
    console: string;
    consoleLog: string;
    events?: string;
  };
  /** A reset by the guest ends qemu (an installer has finished, a kernel has panicked). */
  endOnReset: boolean;
  /** From `PROG.defaults`, after everything else. */
  extraArgs: string[];
}
