import { accessSync, closeSync, constants, openSync, readFileSync } from "node:fs";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import { ARCH } from "../machine/arch.ts";
import type { Arch } from "../machine/types.ts";

/** Facts of the host that decide whether KVM can work. */
export interface KvmFacts {
  hostArch: string;
  /** Why `/dev/kvm` does not open; undefined when it does. */
  deviceProblem: string | undefined;
  /** The caller lacks the rights for it. */
  denied?: boolean;
  /** `flags` of /proc/cpuinfo. */
  cpuFlags: string[];
}

/**
 * Why KVM cannot run this guest, or undefined when it can. `/dev/kvm` alone proves nothing: there are
 * hosts where it opens and guests then hang, so on x86 the CPU itself must offer vmx or svm.
 */
export function kvmProblem(arch: Arch, facts: KvmFacts): string | undefined {
  const hosts: readonly string[] = ARCH[arch].kvmHosts;
  if (!hosts.includes(facts.hostArch)) return `a ${facts.hostArch} host cannot run ${arch} guests by itself`;
  if (facts.deviceProblem) return facts.deviceProblem;
  if (!FLAGS_TELL.includes(facts.hostArch)) return undefined;
  if (!facts.cpuFlags.includes("vmx") && !facts.cpuFlags.includes("svm"))
    return "the CPU shows no virtualization (no vmx or svm in /proc/cpuinfo)";
  return undefined;
}

/** Processors whose flags tell whether they can run guests; others' kernels make /dev/kvm only where they can. */
const FLAGS_TELL = ["x86_64", "i686", "i386"];

/** Looks at this host. */
export function probeKvm(hostArch: string): KvmFacts {
  let deviceProblem: string | undefined;
  let denied = false;
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    closeSync(openSync("/dev/kvm", constants.O_RDWR));
  } catch (error) {
    deviceProblem = `/dev/kvm does not open (${reasonOf(error)})`;
    denied = hasErrno(error, "EACCES");
  }
  return { hostArch, deviceProblem, denied, cpuFlags: readCpuFlags() };
}

/** What the processor can do, by the kernel's names; none where /proc is not mounted. */
export function readCpuFlags(): string[] {
  try {
    const flags = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
    return flags.trim().split(/\s+/);
  } catch {
    return [];
  }
}

/**
 * Decides between KVM and emulation.
 * @returns the accelerator, and for `auto` why it is not KVM
 * @throws 69 when KVM was asked for and cannot work
 */
export function resolveAccel(
  wanted: "auto" | "kvm" | "tcg",
  arch: Arch,
  hostArch: string,
): { accel: "kvm" | "tcg"; problem?: string } {
  if (wanted === "tcg") return { accel: "tcg" };
  const problem = kvmProblem(arch, probeKvm(hostArch));
  if (problem === undefined) return { accel: "kvm" };
  if (wanted === "auto") return { accel: "tcg", problem };
  throw new VmError("unavailable", `ACCEL=kvm cannot be used: ${problem}`, {
    hint: "ACCEL=auto falls back to emulation (slow)",
  });
}

/** The processor of a guest for which nobody has chosen one. */
export const defaultCpu = (arch: Arch, accel: "kvm" | "tcg"): string =>
  accel === "kvm" ? "host" : ARCH[arch].emulatedCpu;
