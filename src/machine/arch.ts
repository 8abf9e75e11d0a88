import { ARCHES, type Arch, type DiskBus } from "./types.ts";

export interface ArchFacts {
  /** The qemu program. */
  binary: string;
  /** Hosts (`uname -m`) whose KVM runs this guest. */
  kvmHosts: readonly string[];
  /** qemu machine types by firmware mode; `kernel`: for a kernel that qemu boots itself. */
  machineType: { bios: string; uefi: string; kernel: string };
  /** CPU model for TCG: all features but slow ones. */
  emulatedCpu: string;
  /** Supported firmware; with a single one there is no choice. */
  boots: readonly ("bios" | "uefi")[];
  /** Name of the firmware other than UEFI. */
  biosName: string;
  /** Boot loaders for a machine without a BIOS, passed to qemu as a kernel. */
  bootLoaders?: readonly string[];
  /** First qemu that boots it by UEFI: [major, minor]. */
  uefiSince?: readonly [number, number];
  /** Its name in firmware descriptors (`/usr/share/qemu/firmware`). */
  firmwareTarget: { architecture: string; machine: string };
  /** Code and variable files of distributions without descriptors: [code, vars]. */
  firmwarePaths: readonly (readonly [string, string])[];
  /** Default bus of disks: the firmware can boot from it. */
  diskBus: DiskBus;
  /** Bus of the CD: the firmware can boot from it. */
  cdBus: DiskBus;
  /** Graphics card, and the one for SPICE if qemu has it. */
  card: string;
  spiceCard?: string;
  /** Free slots on the PCI bus: 32 less those of built-in devices (tested with qemu 7.2). */
  pciSlots: number;
  /** Maximum of `-smp` (qemu 7.2); on `virt` that of the machine type if the interrupt controller has no lower one. */
  maxCpus: number;
  /** The machine has no built-in keyboard. */
  usbKeyboard: boolean;
  /** Command line of a kernel that qemu boots: the serial console, and options for this machine. */
  kernelAppend: string;
  /** Its firmware reports SMBIOS tables of `-smbios` (qemu 7.2). */
  smbios?: true;
  /** Device by which the guest's kernel reports a panic. */
  panicDevice?: "pvpanic" | "pvpanic-pci";
  /** It can have qemu's device of a VM generation ID, in no PCI slot. */
  generationId?: true;
  /** qemu's TPM 2.0 device of this machine, in no PCI slot; absent: it has none. */
  tpmDevice?: string;
  /** Its firmware can enforce Secure Boot. `smm`: in system management mode, which the machine must have then. */
  secureBoot?: { smm: boolean };
  /** Its rescue can resume a saved state: it starts without boot code (PVH), and is notified that it is a copy. */
  warm?: true;
  /** qemu writes to the guest's RAM at each start, even for a machine that is resumed: a saved RAM file would be damaged. */
  writesRam?: true;
  /** ELF machine of its programs (elf(5), e_machine). */
  elfMachine: number;
  /** Magic numbers of kernel images: [offset, bytes], one of which matches. */
  kernelMagic: readonly (readonly [offset: number, bytes: string])[];
  /** On guest shutdown, qemu before 8.2 exits with status 0 without an event. */
  endsWithoutEvent?: true;
  /** Systems installed for one architecture of a family boot on the others. */
  family?: "PC";
  /** Other names for it in users' files. */
  aliases: RegExp;
}

/**
 * Linux copies with `rep movsb` if the processor reports that as fast. TCG emulates it byte by byte: without these two
 * features a kernel boots in 5/6 of the time (measured with qemu 7.2).
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
  smbios: true,
  panicDevice: "pvpanic",
  generationId: true,
  tpmDevice: "tpm-crb",
  secureBoot: { smm: true },
  warm: true,
  kernelMagic: [[0x202, "HdrS"]],
  // On a loaded host the check of the emulated timer may fail, and stop the boot.
  kernelAppend: "console=ttyS0 8250.nr_uarts=1 no_timer_check",
} as const;

/** Linux, Documentation/arch/arm64/booting.rst: a gzip file, or a self-decompressing EFI program. */
const GZIP = [0, "\x1f\x8b"] as const;
const ZBOOT = [4, "zimg"] as const;

/** Common facts of the `virt` machines of Arm and RISC-V. */
const VIRT = {
  biosName: "U-Boot",
  pciSlots: 31,
  maxCpus: 512,
  card: "virtio-gpu-pci",
  usbKeyboard: true,
  panicDevice: "pvpanic-pci",
  diskBus: "VIRT",
} as const;

/** All that differs between guest architectures. */
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
    smbios: true,
    tpmDevice: "tpm-tis-device",
    secureBoot: { smm: false },
    binary: "qemu-system-aarch64",
    elfMachine: 183,
    kernelMagic: [[56, "ARM\x64"], GZIP, ZBOOT],
    kvmHosts: ["aarch64"],
    machineType: {
      bios: "virt,gic-version=max",
      uefi: "virt,gic-version=max",
      kernel: "virt,gic-version=max",
    },
    // With the architected pointer authentication a kernel takes three times as long to boot (qemu 7.2).
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
    smbios: true,
    tpmDevice: "tpm-tis-device",
    // Its interrupt controller is of version 2.
    maxCpus: 8,
    binary: "qemu-system-arm",
    elfMachine: 40,
    kernelMagic: [[0x24, "\x18\x28\x6f\x01"], ZBOOT],
    kvmHosts: ["armv7l"],
    // Kernels without LPAE cannot address devices above 4 GiB.
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
    // The only CD that U-Boot boots from.
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
    tpmDevice: "tpm-spapr",
    // The device tree (hw/ppc/spapr.c, spapr_machine_reset).
    writesRam: true,
    card: "VGA",
    usbKeyboard: true,
    kernelAppend: "console=hvc0",
    aliases: /^(ppc64el|powerpc64le)$/,
  },
} as const satisfies Record<Arch, ArchFacts>;

/** Parses a name of an architecture (`i686` → `i386`); undefined if unknown. */
export function parseArch(text: string): Arch | undefined {
  return ARCHES.find((arch) => arch === text || ARCH[arch].aliases.test(text));
}
