import { ARCHES, type Arch, type DiskBus } from "./types.ts";

export interface ArchFacts {
  /** qemu's program for this guest. */
  binary: string;
  /** Hosts (`uname -m`) whose KVM runs this guest. */
  kvmHosts: readonly string[];
  /** qemu machine types by firmware mode; `kernel`: for a kernel that qemu boots itself. */
  machineType: { bios: string; uefi: string; kernel: string };
  /** The processor under TCG: all it can do, but for what it does slowly. */
  emulatedCpu: string;
  /** Firmware it boots by; with one of them, nobody has to choose. */
  boots: readonly ("bios" | "uefi")[];
  /** What people call that which it boots by without UEFI. */
  biosName: string;
  /** A machine that has nothing in a BIOS's place is given one of these boot loaders, as a kernel. */
  bootLoaders?: readonly string[];
  /** The qemu from which on it boots by UEFI: [major, minor]. */
  uefiSince?: readonly [number, number];
  /** How firmware descriptors (`/usr/share/qemu/firmware`) name it. */
  firmwareTarget: { architecture: string; machine: string };
  /** Code and variable files of distributions without descriptors: [code, vars]. */
  firmwarePaths: readonly (readonly [string, string])[];
  /** The bus of a disk for which nobody has chosen one: its firmware can boot from it. */
  diskBus: DiskBus;
  /** The bus of the CD, from which its firmware can boot. */
  cdBus: DiskBus;
  /** Graphics card, and the one for SPICE where qemu has it. */
  card: string;
  spiceCard?: string;
  /** Places on the PCI bus: 32, without those of the machine's own devices (tried with qemu 7.2). */
  pciSlots: number;
  /** The most that `-smp` takes (qemu 7.2): of a `pc`, of a `virt` whose interrupt controller has no such limit. */
  maxCpus: number;
  /** The machine has no keyboard of its own. */
  usbKeyboard: boolean;
  /** What a kernel that qemu boots is told: the serial console, and what this machine wants besides. */
  kernelAppend: string;
  /** Its rescue can go on from a saved state: it starts without boot code (PVH), and learns that it is a copy. */
  warm?: true;
  /** Its programs (elf(5), e_machine). */
  elfMachine: number;
  /** Its kernels' boot images: [offset, bytes there], of which one is enough. */
  kernelMagic: readonly (readonly [offset: number, bytes: string])[];
  /** When its guest powers itself off, some qemus (before 8.2) end at once, with status 0 and no event. */
  endsWithoutEvent?: true;
  /** What is installed for one of these runs on each other that says the same. */
  family?: "PC";
  /** Further names that users' files hold for it. */
  aliases: RegExp;
}

/**
 * Linux copies by `rep movsb` where a processor is said to be fast at it. TCG does that byte by byte: without
 * these two a kernel boots in 5/6 of the time (measured with qemu 7.2).
 */
const X86_EMULATED_CPU = "max,erms=off,fsrm=off";

const X86 = {
  family: "PC",
  machineType: { bios: "pc", uefi: "q35", kernel: "q35,sata=off" },
  emulatedCpu: X86_EMULATED_CPU,
  boots: ["bios", "uefi"],
  biosName: "BIOS",
  pciSlots: 30,
  maxCpus: 255,
  diskBus: "AHCI",
  cdBus: "AHCI",
  card: "VGA",
  spiceCard: "qxl-vga",
  usbKeyboard: false,
  warm: true,
  kernelMagic: [[0x202, "HdrS"]],
  // On a loaded host an emulated timer may seem not to work; the check for it would end the boot.
  kernelAppend: "console=ttyS0 8250.nr_uarts=1 no_timer_check",
} as const;

/** Linux, Documentation/arch/arm64/booting.rst: compressed as a whole, or an EFI program that unpacks itself. */
const GZIP = [0, "\x1f\x8b"] as const;
const ZBOOT = [4, "zimg"] as const;

/** What Arm's and RISC-V's `virt` machines have in common: nothing but PCI. */
const VIRT = {
  biosName: "U-Boot",
  pciSlots: 31,
  maxCpus: 512,
  card: "virtio-gpu-pci",
  usbKeyboard: true,
  diskBus: "VIRT",
} as const;

/** What differs between guest architectures: here and nowhere else. */
export const ARCH = {
  x86_64: {
    ...X86,
    binary: "qemu-system-x86_64",
    elfMachine: 62,
    kvmHosts: ["x86_64"],
    firmwareTarget: { architecture: "x86_64", machine: "pc-q35-" },
    firmwarePaths: [
      ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"],
      ["/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"],
      ["/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"],
      ["/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"],
      ["/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"],
    ],
    aliases: /^(amd64|x86-64)$/,
  },
  i386: {
    ...X86,
    binary: "qemu-system-i386",
    elfMachine: 3,
    kvmHosts: ["x86_64", "i686", "i386"],
    firmwareTarget: { architecture: "i386", machine: "pc-q35-" },
    firmwarePaths: [
      ["/usr/share/OVMF/OVMF32_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF32_VARS_4M.fd"],
      ["/usr/share/edk2/ovmf-ia32/OVMF_CODE.fd", "/usr/share/edk2/ovmf-ia32/OVMF_VARS.fd"],
      ["/usr/share/edk2/ia32/OVMF_CODE.4m.fd", "/usr/share/edk2/ia32/OVMF_VARS.4m.fd"],
      ["/usr/share/OVMF/OVMF32_CODE.fd", "/usr/share/OVMF/OVMF32_VARS.fd"],
    ],
    aliases: /^(i\d86|pentium\d?|athlon)$/,
  },
  aarch64: {
    ...VIRT,
    binary: "qemu-system-aarch64",
    elfMachine: 183,
    kernelMagic: [[56, "ARM\x64"], GZIP, ZBOOT],
    kvmHosts: ["aarch64"],
    machineType: {
      bios: "virt,gic-version=max",
      uefi: "virt,gic-version=max",
      kernel: "virt,gic-version=max",
    },
    // Pointers signed by the architecture's own cipher make a kernel boot three times as long (qemu 7.2).
    emulatedCpu: "max,pauth-impdef=on",
    boots: ["uefi"],
    firmwareTarget: { architecture: "aarch64", machine: "virt-" },
    firmwarePaths: [
      ["/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"],
      ["/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"],
      ["/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/edk2/aarch64/QEMU_VARS.fd"],
    ],
    cdBus: "SCSI",
    kernelAppend: "console=ttyAMA0",
    aliases: /^(arm64|armv8)$/,
  },
  armhf: {
    ...VIRT,
    // Its interrupt controller is of version 2.
    maxCpus: 8,
    binary: "qemu-system-arm",
    elfMachine: 40,
    kernelMagic: [[0x24, "\x18\x28\x6f\x01"], ZBOOT],
    kvmHosts: ["armv7l"],
    // Kernels without LPAE do not find what is above 4 GiB.
    machineType: { bios: "virt,highmem=off", uefi: "virt,highmem=off", kernel: "virt,highmem=off" },
    emulatedCpu: "max",
    boots: ["uefi"],
    firmwareTarget: { architecture: "arm", machine: "virt-" },
    firmwarePaths: [
      ["/usr/share/AAVMF/AAVMF32_CODE.fd", "/usr/share/AAVMF/AAVMF32_VARS.fd"],
      ["/usr/share/edk2/arm/QEMU_EFI-pflash.raw", "/usr/share/edk2/arm/vars-template-pflash.raw"],
      ["/usr/share/edk2/arm/QEMU_CODE.fd", "/usr/share/edk2/arm/QEMU_VARS.fd"],
    ],
    cdBus: "SCSI",
    kernelAppend: "console=ttyAMA0",
    aliases: /^(arm|armv7(l|hf)?|armhfp)$/,
  },
  riscv64: {
    ...VIRT,
    binary: "qemu-system-riscv64",
    elfMachine: 243,
    kernelMagic: [[56, "RSC\x05"], GZIP, ZBOOT],
    kvmHosts: ["riscv64"],
    machineType: { bios: "virt", uefi: "virt", kernel: "virt" },
    emulatedCpu: "rv64",
    boots: ["bios", "uefi"],
    uefiSince: [8, 1],
    bootLoaders: [
      "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin",
      "/usr/share/uboot/qemu-riscv64_smode/u-boot.bin",
    ],
    firmwareTarget: { architecture: "riscv64", machine: "virt" },
    firmwarePaths: [
      ["/usr/share/qemu-efi-riscv64/RISCV_VIRT_CODE.fd", "/usr/share/qemu-efi-riscv64/RISCV_VIRT_VARS.fd"],
      ["/usr/share/edk2/riscv/RISCV_VIRT_CODE.fd", "/usr/share/edk2/riscv/RISCV_VIRT_VARS.fd"],
    ],
    // U-Boot boots from no other CD.
    cdBus: "VIRT",
    kernelAppend: "console=ttyS0",
    // hw/misc/sifive_test.c called exit().
    endsWithoutEvent: true,
    aliases: /^riscv$/,
  },
  ppc64le: {
    binary: "qemu-system-ppc64",
    elfMachine: 21,
    // ELF (elf(5)): e_type, older kernels' and newer ones', and e_machine.
    kernelMagic: [
      [16, "\x02\0\x15\0"],
      [16, "\x03\0\x15\0"],
    ],
    kvmHosts: ["ppc64le"],
    machineType: { bios: "pseries", uefi: "pseries", kernel: "pseries" },
    emulatedCpu: "power9",
    boots: ["bios"],
    biosName: "Open Firmware",
    pciSlots: 31,
    maxCpus: 1024,
    firmwareTarget: { architecture: "ppc64", machine: "pseries-" },
    firmwarePaths: [],
    diskBus: "VIRT",
    cdBus: "SCSI",
    card: "VGA",
    usbKeyboard: true,
    kernelAppend: "console=hvc0",
    aliases: /^(ppc64el|powerpc64le)$/,
  },
} as const satisfies Record<Arch, ArchFacts>;

/** The architecture a user's word means (`i686` → `i386`), or undefined. */
export function parseArch(text: string): Arch | undefined {
  return ARCHES.find((arch) => arch === text || ARCH[arch].aliases.test(text));
}
