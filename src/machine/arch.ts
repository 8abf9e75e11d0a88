import { ARCHES, type Arch } from "./types.ts";

export interface ArchFacts {
  /** qemu's program for this guest. */
  binary: string;
  /** Hosts (`uname -m`) whose KVM runs this guest. */
  kvmHosts: readonly string[];
  /** qemu machine types by firmware mode; `kernel`: for a kernel that qemu boots itself. */
  machineType: { bios: string; uefi: string; kernel: string };
  /** The processor under TCG: all it can do, but for what it does slowly. */
  emulatedCpu: string;
  /** How firmware descriptors (`/usr/share/qemu/firmware`) name it. */
  firmwareTarget: { architecture: string; machine: string };
  /** Code and variable files of distributions without descriptors: [code, vars]. */
  firmwarePaths: readonly (readonly [string, string])[];
  /** Further names that users' files hold for it. */
  aliases: RegExp;
}

/** What differs between guest architectures: here and nowhere else. */
/**
 * Linux copies by `rep movsb` where a processor is said to be fast at it. TCG does that byte by byte: without
 * these two a kernel boots in 5/6 of the time (measured with qemu 7.2).
 */
const X86_EMULATED_CPU = "max,erms=off,fsrm=off";

export const ARCH = {
  x86_64: {
    binary: "qemu-system-x86_64",
    kvmHosts: ["x86_64"],
    machineType: { bios: "pc", uefi: "q35", kernel: "q35,sata=off" },
    emulatedCpu: X86_EMULATED_CPU,
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
    binary: "qemu-system-i386",
    kvmHosts: ["x86_64", "i686", "i386"],
    machineType: { bios: "pc", uefi: "q35", kernel: "q35,sata=off" },
    emulatedCpu: X86_EMULATED_CPU,
    firmwareTarget: { architecture: "i386", machine: "pc-q35-" },
    firmwarePaths: [
      ["/usr/share/OVMF/OVMF32_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF32_VARS_4M.fd"],
      ["/usr/share/edk2/ovmf-ia32/OVMF_CODE.fd", "/usr/share/edk2/ovmf-ia32/OVMF_VARS.fd"],
      ["/usr/share/edk2/ia32/OVMF_CODE.4m.fd", "/usr/share/edk2/ia32/OVMF_VARS.4m.fd"],
      ["/usr/share/OVMF/OVMF32_CODE.fd", "/usr/share/OVMF/OVMF32_VARS.fd"],
    ],
    aliases: /^(i\d86|pentium\d?|athlon)$/,
  },
} as const satisfies Record<Arch, ArchFacts>;

/** The architecture a user's word means (`i686` → `i386`), or undefined. */
export function parseArch(text: string): Arch | undefined {
  return ARCHES.find((arch) => arch === text || ARCH[arch].aliases.test(text));
}
