/** Machines whose whole command line is stored in test/golden, one file each. */
import { join } from "node:path";
import type { Capabilities } from "../../src/qemu/capabilities.ts";
import type { Disk, DiskBus, Machine, Nic, Share, SharedDisplay } from "../../src/machine/types.ts";

const WORK = "/tmp/vm-1";

export const QEMU: Capabilities = {
  version: "7.2.22",
  devices: new Set(["qxl-vga", "virtio-9p-pci"]),
  spice: true,
  sandbox: true,
  vnc: true,
  ioUring: true,
  nativeAio: true,
};

function disk(bus: DiskBus, index: number, changes: Partial<Disk> = {}): Disk {
  const path = join(WORK, `disk-${index}.img`);
  return {
    number: index,
    bus,
    format: "qcow2",
    path,
    serial: `disk-${index}`,
    backingAllowed: false,
    ...changes,
  };
}

const disks = (...buses: DiskBus[]): Disk[] => buses.map((bus, index) => disk(bus, index));

const share = (tag: string, changes: Partial<Share> = {}): Share => ({
  tag,
  path: `/srv/${tag}`,
  writable: false,
  security: "none",
  ...changes,
});

const nic = (changes: Partial<Nic> = {}): Nic => ({
  number: 1,
  mac: undefined,
  link: "up",
  network: { kind: "user" },
  forwards: [],
  ...changes,
});

const SPICE: SharedDisplay = {
  kind: "spice",
  at: { host: "localhost", port: 5900 },
  passwordFile: join(WORK, "spice.password"),
  tls: undefined,
};
const VNC: SharedDisplay = { ...SPICE, kind: "vnc" };
const TLS = { directory: "/etc/vm,tls", ca: "", subject: "" };

const UEFI: Machine["firmware"] = {
  code: { path: "/usr/share/OVMF/OVMF_CODE_4M.fd", format: "raw" },
  vars: { path: join(WORK, "efivars.bin"), format: "raw" },
  smm: false,
};

const aavmf = (name: string): Machine["firmware"] => ({
  code: { path: `/usr/share/AAVMF/${name}_CODE.fd`, format: "raw" },
  vars: { path: join(WORK, "efivars.bin"), format: "raw" },
  smm: false,
});

/** Machines that are not PCs. */
const FOREIGN: Partial<Machine> = { disks: disks("VIRT"), shares: [share("in", { path: "/home/me/vm1" })] };

/** Common to all rescues. */
const RESUMED: Partial<Machine> = {
  display: { kind: "serial" },
  resumed: true,
  generationId: "auto",
  ram: { path: "/proc/self/fd/4", shared: false },
};

const RESCUE: Partial<Machine> = {
  shares: [
    share("in", { path: join(WORK, ".in") }),
    share("out", { path: join(WORK, ".out"), writable: true, security: "mapped-file" }),
  ],
  channels: [
    { name: "vm.control.0", socket: join(WORK, "control.sock") },
    { name: "vm.ask.0", socket: "ask.sock" },
  ],
  endOnReset: true,
  netboot: { order: "off", directory: undefined, file: undefined },
};

/** `-kernel` and related options. */
const OWN: Partial<Machine> = {
  display: { kind: "serial" },
  kernel: {
    image: "/home/me/vm/rescue-x86_64/vmlinux",
    initrd: "/home/me/vm/rescue, mine/initrd.img",
    append: "console=ttyS0 quiet panic=-1 rescue.disks=1",
  },
};

const PLAIN: Machine = {
  name: "WS10",
  arch: "x86_64",
  layout: 0,
  uuid: undefined,
  accel: "tcg",
  cpu: "max",
  sockets: 1,
  cores: 2,
  memoryMiB: 2048,
  ram: undefined,
  firmware: undefined,
  tpm: undefined,
  disks: disks("AHCI"),
  controllerPlaces: [],
  cdrom: undefined,
  seed: undefined,
  nics: [nic()],
  netboot: { order: "last", directory: undefined, file: undefined },
  shares: [],
  display: SPICE,
  files: {
    qmp: join(WORK, "qmp.sock"),
    monitor: join(WORK, "monitor.sock"),
    backup: join(WORK, "backup.sock"),
    console: join(WORK, "console.sock"),
    consoleLog: join(WORK, "console.log"),
  },
  kernel: undefined,
  bootLoader: undefined,
  resumed: false,
  generationId: undefined,
  smbios: [],
  panicDevice: undefined,
  channels: [],
  endOnReset: false,
  extraArgs: [],
};

/** Everything that a user can name, in a directory of this name. */
function awkward(name: string): Partial<Machine> {
  const at = `/srv/${name}`;
  return {
    name,
    disks: [disk("VIRT", 0, { path: `${at}/disk-0.img` }), disk("AHCI", 1, { path: `${at}/${name}.img` })],
    cdrom: { path: `${at}/${name}.iso`, first: true },
    firmware: {
      code: { path: `${at}/CODE.fd`, format: "raw" },
      vars: { path: `${at}/efivars.bin`, format: "raw" },
      smm: false,
    },
    shares: [share("in", { path: at }), share("out", { path: `${at}/.out`, writable: true })],
    display: { ...SPICE, passwordFile: `${at}/spice.password` },
    files: {
      qmp: `${at}/qmp.sock`,
      monitor: `${at}/monitor.sock`,
      backup: `${at}/backup.sock`,
      console: `${at}/console.sock`,
      consoleLog: `${at}/console.log`,
    },
  };
}

const ONE: Partial<Machine> = {
  layout: 1,
  uuid: "123e4567-e89b-42d3-a456-426614174000",
  nics: [nic({ mac: "06:9f:1c:22:33:44" })],
  channels: [{ name: "org.qemu.guest_agent.0", socket: join(WORK, "agent.sock") }],
};
const CD = { path: "/iso/a.iso", first: true };
const manyShares = Array.from({ length: 6 }, (_, index) => share(`s${index}`));
const everyBus = disks("VIRT", "AHCI", "SCSI", "NVME", "VIRT", "AHCI");
const twelve = disks(...Array.from({ length: 12 }, () => "VIRT" as const));

/** Pinned addresses. */
const LAYOUT_1: Record<string, Partial<Machine>> = {
  "layout-pc": ONE,
  "layout-pc-generation": { ...ONE, layout: 2, generationId: "4e0a5f3c-7b1d-8c2e-9f60-1a2b3c4d5e6f" },
  "layout-pc-own-generation": {
    ...ONE,
    layout: 2,
    generationId: "4e0a5f3c-7b1d-8c2e-9f60-1a2b3c4d5e6f",
    extraArgs: ["-device", "vmgenid,guid=auto"],
  },
  "layout-pc-cd": { ...ONE, cdrom: CD },
  "layout-pc-all": {
    ...ONE,
    disks: everyBus,
    cdrom: CD,
    seed: join(WORK, "vm-seed.img"),
    shares: manyShares,
    nics: [nic(), nic({ number: 2 }), nic({ number: 4 })],
  },
  "layout-pc-many": { ...ONE, disks: twelve },
  "layout-pc-gap": { ...ONE, disks: [disk("VIRT", 2), disk("SCSI", 5), disk("SCSI", 1)], display: VNC },
  "layout-pc-usb": { ...ONE, disks: disks("VIRT", "USB", "USB"), display: { kind: "serial" } },
  "layout-pc-serial": { ...ONE, display: { kind: "serial" }, nics: [] },
  "layout-q35": { ...ONE, firmware: UEFI },
  "layout-q35-all": {
    ...ONE,
    firmware: UEFI,
    disks: everyBus,
    cdrom: { ...CD, first: false },
    seed: join(WORK, "vm-seed.img"),
    shares: manyShares,
    nics: [nic(), nic({ number: 3 })],
  },
  "layout-q35-many": { ...ONE, firmware: UEFI, disks: twelve },
  "layout-aarch64": {
    ...ONE,
    ...FOREIGN,
    arch: "aarch64",
    cpu: "max,pauth-impdef=on",
    firmware: aavmf("AAVMF"),
  },
  "layout-aarch64-cd": {
    ...ONE,
    ...FOREIGN,
    arch: "aarch64",
    cpu: "max,pauth-impdef=on",
    firmware: aavmf("AAVMF"),
    cdrom: CD,
  },
  "layout-riscv64-cd": {
    ...ONE,
    ...FOREIGN,
    arch: "riscv64",
    cpu: "rv64",
    bootLoader: "/u-boot.bin",
    cdrom: CD,
  },
  "layout-riscv64-cd-last": {
    ...ONE,
    ...FOREIGN,
    arch: "riscv64",
    cpu: "rv64",
    bootLoader: "/u-boot.bin",
    cdrom: { ...CD, first: false },
  },
  "layout-ppc64le": { ...ONE, ...FOREIGN, arch: "ppc64le", cpu: "power9", cdrom: CD },
};

const VARIANTS: Record<string, Partial<Machine> & { capabilities?: Partial<Capabilities> }> = {
  "bios-ahci": {},
  "bios-nvme": { disks: disks("NVME") },
  "bios-scsi": { disks: disks("SCSI") },
  "bios-virt": { disks: disks("VIRT") },
  "uefi-ahci": { firmware: UEFI },
  "uefi-nvme": { firmware: UEFI, disks: disks("NVME") },
  "uefi-scsi": { firmware: UEFI, disks: disks("SCSI") },
  "uefi-virt": { firmware: UEFI, disks: disks("VIRT") },
  "firmware-qcow2": {
    firmware: {
      code: { path: "/usr/share/edk2/CODE.qcow2", format: "qcow2" },
      vars: { path: `${WORK}/efivars.bin`, format: "qcow2" },
      smm: false,
    },
  },
  "disks-mixed": { disks: disks("SCSI", "VIRT", "AHCI", "NVME", "SCSI", "AHCI", "VIRT", "NVME") },
  "disks-ahci-8": { disks: disks(...Array.from({ length: 8 }, () => "AHCI" as const)) },
  "disks-ahci-6-cd": {
    disks: disks(...Array.from({ length: 6 }, () => "AHCI" as const)),
    cdrom: { path: "/iso/a.iso", first: true },
  },
  "disks-scsi-66": { disks: disks(...Array.from({ length: 66 }, () => "SCSI" as const)) },
  "disks-usb": { disks: disks("USB", "VIRT", "USB") },
  "disks-none": { disks: [] },
  "disks-io-uring": {
    disks: disks("SCSI", "VIRT", "AHCI", "NVME", "USB").map((one) => ({ ...one, aio: "io_uring" })),
  },
  "disks-native": {
    disks: [disk("VIRT", 0, { aio: "native", base: { format: "qcow2", path: "/srv/base.qcow2" } })],
  },
  "disks-formats": {
    disks: [
      disk("VIRT", 0),
      disk("VIRT", 1, { format: "raw", path: "/dev/vg/lv" }),
      disk("AHCI", 2, { path: "/srv/overlay.qcow2", backingAllowed: true }),
      disk("SCSI", 3, { format: "vmdk", path: "/srv/a.vmdk" }),
      disk("NVME", 4, { format: "vdi", path: "/srv/a.vdi" }),
    ],
  },
  "disk-linked": {
    disks: [
      disk("VIRT", 0, { base: { format: "vmdk", path: "/srv/base, 1.vmdk" } }),
      disk("AHCI", 1, { base: { format: "raw", path: "/dev/vg/base", blockDevice: true } }),
    ],
  },
  "ram-file": { ram: { path: "/proc/self/fd/4", shared: true } },
  "ram-file-private": { ram: { path: "/srv/state, 1/ram", shared: false }, firmware: UEFI },
  seed: { disks: disks("VIRT"), seed: join(WORK, "vm-seed.img") },
  "seed-cd": { seed: join(WORK, "vm-seed.img"), cdrom: { path: "/iso/a.iso", first: true } },
  "cd-first": { cdrom: { path: "/iso/a.iso", first: true } },
  "cd-last": { cdrom: { path: "/iso/a.iso", first: false } },
  "cd-only": { disks: [], cdrom: { path: "/iso/a.iso", first: true } },
  "cd-first-virt": { disks: disks("VIRT", "VIRT"), cdrom: { path: "/iso/a.iso", first: true } },
  "i386-bios": { arch: "i386" },
  "i386-uefi": { arch: "i386", firmware: UEFI },
  aarch64: {
    ...FOREIGN,
    arch: "aarch64",
    cpu: "max,pauth-impdef=on",
    firmware: aavmf("AAVMF"),
    cdrom: { path: "/iso/a.iso", first: true },
  },
  "aarch64-kvm": { ...FOREIGN, arch: "aarch64", accel: "kvm", cpu: "host", firmware: aavmf("AAVMF") },
  "aarch64-nvme-scsi": {
    arch: "aarch64",
    firmware: aavmf("AAVMF"),
    disks: disks("NVME", "SCSI"),
    cdrom: { path: "/iso/a.iso", first: false },
    display: VNC,
  },
  "aarch64-rescue": {
    ...RESCUE,
    ...OWN,
    arch: "aarch64",
    firmware: aavmf("AAVMF"),
    disks: disks("VIRT"),
  },
  armhf: {
    ...FOREIGN,
    arch: "armhf",
    firmware: aavmf("AAVMF32"),
    cdrom: { path: "/iso/a.iso", first: true },
  },
  riscv64: {
    ...FOREIGN,
    arch: "riscv64",
    cpu: "rv64",
    bootLoader: "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin",
    disks: disks("VIRT", "VIRT"),
    cdrom: { path: "/iso/a.iso", first: true },
  },
  "riscv64-uefi": { ...FOREIGN, arch: "riscv64", cpu: "rv64", firmware: aavmf("RISCV_VIRT") },
  "riscv64-cd-last": {
    ...FOREIGN,
    arch: "riscv64",
    bootLoader: "/u-boot.bin",
    cdrom: { path: "/iso/a.iso", first: false },
  },
  ppc64le: {
    ...FOREIGN,
    arch: "ppc64le",
    cpu: "power9",
    cdrom: { path: "/iso/a.iso", first: true },
  },
  kvm: { accel: "kvm", cpu: "host" },
  "kvm-i386": { arch: "i386", accel: "kvm", cpu: "host" },
  "cpu-model": { cpu: "Skylake-Client,-hle,+vmx", sockets: 2, cores: 4, memoryMiB: 16384 },
  "size-options": {
    sockets: 2,
    cores: 4,
    cpuOptions: "threads=2,maxcpus=32",
    memoryMiB: 2048,
    memoryOptions: "slots=2,maxmem=8G",
  },
  "cpu-options": { cpuOptions: "dies=2" },
  shares: {
    shares: [
      share("mirror"),
      share("in", { path: "/home/me/vm1" }),
      share("home", { path: "/home/me", writable: true }),
      share("out", { path: `${WORK}/.out`, writable: true, security: "mapped-file" }),
    ],
  },
  forwards: {
    nics: [
      nic({ forwards: ["hostfwd=tcp::5555-:22", "hostfwd=udp:127.0.0.1:53-10.0.2.15:53", "restrict=on"] }),
    ],
  },
  "network-none": { nics: [] },
  networks: {
    nics: [
      nic({ network: { kind: "tap", name: "tap0" } }),
      nic({ number: 2, network: { kind: "bridge", name: "br0" } }),
      nic({ number: 3, network: { kind: "passt" }, forwards: ["hostfwd=tcp::5555-:22"] }),
      nic({ number: 4, network: { kind: "net", name: "lab" }, lifeline: "/run/user/1/a, b/members" }),
    ],
    netboot: { order: "first", directory: undefined, file: undefined },
  },
  "netboot-first": {
    nics: [nic({ number: 2 }), nic({ number: 3 })],
    netboot: { order: "first", directory: "/srv/a, b", file: "x,y.efi" },
  },
  "display-none": { display: { kind: "none" } },
  "spice-open": { display: { ...SPICE, passwordFile: undefined } },
  "spice-address": { display: { ...SPICE, at: { host: "::1", port: 5999 } } },
  "spice-socket": { display: { ...SPICE, at: { socket: join(WORK, "a,b.sock") } } },
  "spice-tls": { display: { ...SPICE, tls: TLS } },
  vnc: { display: VNC },
  "vnc-address": { display: { ...VNC, at: { host: "::1", port: 5999 }, passwordFile: undefined } },
  "vnc-socket": { display: { ...VNC, at: { socket: join(WORK, "a,b.sock") } } },
  "spice-no-qxl": { capabilities: { devices: new Set() } },
  "awkward-comma": awkward("a,b,,c=d,readonly=off"),
  "awkward-space": awkward(" two  words "),
  "awkward-quotes": awkward(`it's "quoted" \`x\` $HOME \\ $(id)`),
  "awkward-newline": awkward("first\nsecond\ttab"),
  "awkward-cyrillic": awkward("Ёлка, №1 = 😀"),
  "awkward-dash": awkward("-rf *? ~ #!;&|<>{}[]"),
  "extra-args": { extraArgs: ["-device", "e1000,netdev=n1", "-netdev", "user,id=n1", "-name", "", "a b\nc"] },
  "extra-sandbox": { extraArgs: ["-sandbox", "off"] },
  "extra-bridge": { extraArgs: ["-netdev", "bridge,id=n1,br=br0", "-device", "virtio-net-pci,netdev=n1"] },
  "extra-nic-tap": { extraArgs: ["--nic", "tap,ifname=tap0"] },
  "rescue-own": { ...RESCUE, ...OWN },
  "rescue-saved": { ...RESCUE, ...OWN, ram: { path: "/proc/self/fd/3", shared: true }, disks: [] },
  "rescue-resumed": { ...RESCUE, ...RESUMED },
  "rescue-resumed-uefi": { ...RESCUE, ...RESUMED, firmware: UEFI },
  "ram-comma": { ram: { path: "/a,b/ram", shared: false } },
  "rescue-own-uefi": { ...RESCUE, ...OWN, firmware: UEFI, disks: disks("NVME") },
  "rescue-cd": { ...RESCUE, display: { kind: "none" }, cdrom: { path: "/iso/rescue.iso", first: true } },
  smbios: {
    smbios: [
      {
        type: 1,
        fields: [
          ["manufacturer", "ACME, Inc."],
          ["serial", "-7 =x"],
        ],
      },
      {
        type: 11,
        fields: [
          ["value", "a"],
          ["value", "b"],
        ],
      },
    ],
  },
  "panic-device": { panicDevice: "pvpanic" },
  "panic-device-virt": {
    ...FOREIGN,
    arch: "aarch64",
    firmware: aavmf("AAVMF"),
    layout: 1,
    panicDevice: "pvpanic-pci",
  },
  "panic-device-own": { panicDevice: "pvpanic", extraArgs: ["-device", "pvpanic,ioport=1285"] },
  ...LAYOUT_1,
  "tpm-bios": { ...ONE, tpm: { device: "tpm-crb" } },
  "tpm-secure-boot": {
    ...ONE,
    firmware: {
      code: { path: "/usr/share/OVMF/OVMF_CODE_4M.ms.fd", format: "raw" },
      vars: { path: join(WORK, "efivars.bin"), format: "raw" },
      smm: true,
    },
    tpm: { device: "tpm-crb" },
  },
  "tpm-aarch64": {
    ...ONE,
    ...FOREIGN,
    arch: "aarch64",
    firmware: aavmf("AAVMF"),
    tpm: { device: "tpm-tis-device" },
  },
  "tpm-ppc64le": { ...ONE, ...FOREIGN, arch: "ppc64le", cpu: "power9", tpm: { device: "tpm-spapr" } },
  "tpm-script": { tpm: { device: "tpm-crb", socket: ".vm-tpm/a,b.sock" } },
  "end-on-reset": { cdrom: { path: "/iso/a.iso", first: true }, endOnReset: true },
};

export interface GoldenCase {
  title: string;
  machine: Machine;
  capabilities: Capabilities;
}

export const MACHINES: readonly GoldenCase[] = Object.entries(VARIANTS).map(
  ([title, { capabilities, ...changes }]) => ({
    title,
    machine: { ...PLAIN, ...changes },
    capabilities: { ...QEMU, ...capabilities },
  }),
);

/** A machine with differences from a plain one. */
export const machineWith = (changes: Partial<Machine>): Machine => ({ ...PLAIN, ...changes });
