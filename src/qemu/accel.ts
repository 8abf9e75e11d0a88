import { accessSync, closeSync, constants, openSync, readFileSync } from "node:fs";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import { ARCH } from "../machine/arch.ts";
import type { Arch } from "../machine/types.ts";

/** Facts about the host that decide whether KVM works. */
export interface KvmFacts {
  hostArch: string;
  /** Why `/dev/kvm` cannot be opened; undefined if it can. */
  deviceProblem: string | undefined;
  /** The caller lacks the permissions. */
  denied?: boolean;
  /** `flags` of /proc/cpuinfo. */
  cpuFlags: string[];
}

/**
 * Why KVM cannot run this guest; undefined if it can. `/dev/kvm` alone proves nothing: on some hosts it opens, and guests
 * hang. So on x86 the CPU must have vmx or svm.
 */
export function kvmProblem(arch: Arch, facts: KvmFacts): string | undefined {
  const hosts: readonly string[] = ARCH[arch].kvmHosts;
  if (!hosts.includes(facts.hostArch)) return `KVM on a ${facts.hostArch} host cannot run ${arch} guests`;
  if (facts.deviceProblem) return facts.deviceProblem;
  if (!HAVE_KVM_FLAGS.includes(facts.hostArch)) return undefined;
  if (!facts.cpuFlags.includes("vmx") && !facts.cpuFlags.includes("svm"))
    return "the CPU has no virtualisation (neither vmx nor svm in /proc/cpuinfo)";
  return undefined;
}

/** Hosts whose CPU flags show virtualisation; on others the kernel creates /dev/kvm only if the CPU has it. */
const HAVE_KVM_FLAGS = ["x86_64", "i686", "i386"];

export function probeKvm(hostArch: string): KvmFacts {
  let deviceProblem: string | undefined;
  let denied = false;
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    closeSync(openSync("/dev/kvm", constants.O_RDWR));
  } catch (error) {
    deviceProblem = `cannot open /dev/kvm: ${reasonOf(error)}`;
    denied = hasErrno(error, "EACCES");
  }
  return { hostArch, deviceProblem, denied, cpuFlags: readCpuFlags() };
}

/** CPU flags, by the kernel's names; empty if /proc is not mounted. */
export function readCpuFlags(): string[] {
  try {
    const flags = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
    return flags.trim().split(/\s+/);
  } catch {
    return [];
  }
}

/**
 * Chooses KVM or emulation.
 * @returns the accelerator, and for `auto` why it is not KVM
 * @throws 69 if KVM is required and does not work
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
  throw new VmError("unavailable", `cannot use ACCEL=kvm: ${problem}`, {
    hint: "use emulation, which is slow: ACCEL=auto",
  });
}

/** Default CPU model of a guest. */
export const defaultCpu = (arch: Arch, accel: "kvm" | "tcg"): string =>
  accel === "kvm" ? "host" : ARCH[arch].emulatedCpu;
