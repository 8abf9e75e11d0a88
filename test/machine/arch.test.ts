import { expect, test } from "bun:test";
import { isThing } from "../../src/lib/packages.ts";
import { ARCH, parseArch, type ArchFacts } from "../../src/machine/arch.ts";
import { ARCHES } from "../../src/machine/types.ts";

test.each([
  ["x86_64", "x86_64"],
  ["amd64", "x86_64"],
  ["x86-64", "x86_64"],
  ["i386", "i386"],
  ["i486", "i386"],
  ["i586", "i386"],
  ["i686", "i386"],
  ["pentium", "i386"],
  ["pentium4", "i386"],
  ["athlon", "i386"],
  ["", undefined],
  ["i86", undefined],
  ["ix86", undefined],
  ["i6866", undefined],
  ["I686", undefined],
  ["x86_64 ", undefined],
  ["aarch64", "aarch64"],
  ["arm64", "aarch64"],
  ["armhf", "armhf"],
  ["armv7l", "armhf"],
  ["arm", "armhf"],
  ["riscv64", "riscv64"],
  ["ppc64le", "ppc64le"],
  ["ppc64el", "ppc64le"],
  ["ppc64", undefined],
  ["s390x", undefined],
  ["arm64e", undefined],
  ["constructor", undefined],
  ["__proto__", undefined],
])("%j means %j", (word, arch) => {
  expect(parseArch(word)).toBe(arch as ReturnType<typeof parseArch>);
});

test.each([...ARCHES])("%s: has a name of its own, and firmware files in pairs", (arch) => {
  const facts: ArchFacts = ARCH[arch];
  expect(parseArch(arch)).toBe(arch);
  expect(ARCHES.filter((other) => other !== arch && ARCH[other].aliases.test(arch))).toEqual([]);
  expect(isThing(facts.binary)).toBe(true);
  for (const [code, vars] of facts.firmwarePaths) {
    expect(code).toMatch(/CODE|EFI/);
    expect(vars.toLowerCase()).toContain("vars");
  }
  // Its firmware exists, and doctor knows its package.
  expect(facts.boots.length).toBeGreaterThan(0);
  expect(facts.firmwarePaths.length > 0).toBe(facts.boots.includes("uefi"));
  expect(isThing(`uefi-${arch}`)).toBe(facts.boots.includes("uefi"));
});
