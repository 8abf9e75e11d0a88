import { describe, expect, test } from "bun:test";
import { kvmProblem, probeKvm, resolveAccel } from "../../src/qemu/accel.ts";
import { failureOf } from "../fixtures/failure.ts";

const ARCHITECTURE = "cannot run";
const CLOSED = "cannot open /dev/kvm: no such file or directory";
const NO_VIRTUALIZATION = "neither vmx nor svm";

describe("kvmProblem: guest, host, /dev/kvm, CPU flags", () => {
  test.each([
    ["x86_64", "x86_64", undefined, "fpu vmx", undefined],
    ["x86_64", "x86_64", undefined, "svm", undefined],
    ["i386", "x86_64", undefined, "vmx", undefined],
    ["i386", "i686", undefined, "vmx", undefined],
    ["i386", "i386", undefined, "svm", undefined],
    ["x86_64", "i686", undefined, "vmx", ARCHITECTURE],
    ["x86_64", "aarch64", undefined, "vmx", ARCHITECTURE],
    ["i386", "aarch64", undefined, "", ARCHITECTURE],
    ["x86_64", "", undefined, "vmx", ARCHITECTURE],
    ["x86_64", "x86_64", CLOSED, "vmx", CLOSED],
    // An open device is not enough: guests hang there.
    ["x86_64", "x86_64", undefined, "fpu hypervisor", NO_VIRTUALIZATION],
    ["x86_64", "x86_64", undefined, "", NO_VIRTUALIZATION],
    ["x86_64", "x86_64", undefined, "vmx_extra svm_lock", NO_VIRTUALIZATION],
  ] as const)("%s on %s, %p, %j: %p", (arch, hostArch, deviceProblem, flags, problem) => {
    const found = kvmProblem(arch, { hostArch, deviceProblem, cpuFlags: flags.split(" ") });
    if (problem === undefined) expect(found).toBeUndefined();
    else expect(found).toContain(problem);
  });
});

describe("resolveAccel", () => {
  test("tcg is always accepted", () => {
    expect(resolveAccel("tcg", "x86_64", "x86_64")).toEqual({ accel: "tcg" });
  });
  test("auto on a foreign host emulates, with the reason", () => {
    const { accel, problem } = resolveAccel("auto", "x86_64", "aarch64");
    expect(accel).toBe("tcg");
    expect(problem).toContain("aarch64");
  });
  test("kvm on a foreign host is rejected", async () => {
    const error = await failureOf(() => resolveAccel("kvm", "x86_64", "aarch64"));
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("ACCEL=kvm");
    expect(error.hint).toContain("ACCEL=auto");
  });
});

test("probeKvm reads the CPU's flags", () => {
  const { hostArch, cpuFlags } = probeKvm("x86_64");
  expect(hostArch).toBe("x86_64");
  expect(cpuFlags.length).toBeGreaterThan(0);
});
