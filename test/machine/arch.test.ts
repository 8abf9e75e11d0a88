import { expect, test } from "bun:test";
import { ARCH, parseArch } from "../../src/machine/arch.ts";
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
  ["aarch64", undefined],
  ["constructor", undefined],
  ["__proto__", undefined],
])("%j means %j", (word, arch) => {
  expect(parseArch(word)).toBe(arch as ReturnType<typeof parseArch>);
});

test.each([...ARCHES])("%s: a name of its own, firmware files in pairs", (arch) => {
  const facts = ARCH[arch];
  expect(parseArch(arch)).toBe(arch);
  expect(facts.binary).toBe(`qemu-system-${arch}`);
  for (const [code, vars] of facts.firmwarePaths) {
    expect(code).toContain("CODE");
    expect(vars).toContain("VARS");
  }
});
