import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import {
  chooseFirmware,
  findFirmware,
  NoFittingFirmware,
  parseDescriptor,
  type FirmwareFiles,
} from "../../src/qemu/firmware.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

interface Shape {
  description: string;
  "interface-types": string[];
  mapping: Record<string, unknown>;
  targets: { architecture: string; machines: string[] }[];
  features: string[];
  tags: string[];
}

/** A descriptor as in Debian's packages ovmf and ovmf-ia32. */
function descriptor(code: string, vars: string, changes: Partial<Shape> = {}): string {
  const shape: Shape = {
    description: "UEFI firmware",
    "interface-types": ["uefi"],
    mapping: {
      device: "flash",
      executable: { filename: `/usr/share/OVMF/${code}`, format: "raw" },
      "nvram-template": { filename: `/usr/share/OVMF/${vars}`, format: "raw" },
    },
    targets: [{ architecture: "x86_64", machines: ["pc-i440fx-*", "pc-q35-*"] }],
    features: ["acpi-s3", "amd-sev", "verbose-dynamic"],
    tags: [],
    ...changes,
  };
  return JSON.stringify(shape, null, 4);
}

const Q35 = { architecture: "x86_64", machines: ["pc-q35-*"] };
const Q35_32 = { architecture: "i386", machines: ["pc-q35-*"] };

/** The files of Debian 12. */
const DEBIAN = {
  "40-edk2-x86_64-secure-enrolled.json": descriptor("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd", {
    targets: [Q35],
    features: ["acpi-s3", "amd-sev", "enrolled-keys", "requires-smm", "secure-boot", "verbose-dynamic"],
  }),
  "50-edk2-x86_64-secure.json": descriptor("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.fd", {
    targets: [Q35],
    features: ["acpi-s3", "amd-sev", "requires-smm", "secure-boot", "verbose-dynamic"],
  }),
  "60-edk2-x86_64.json": descriptor("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
  "50-edk2-i386-secure.json": descriptor("OVMF32_CODE_4M.secboot.fd", "OVMF32_VARS_4M.fd", {
    targets: [Q35_32],
    features: ["acpi-s3", "requires-smm", "secure-boot", "verbose-dynamic"],
  }),
};

const i386Plain = descriptor("OVMF32_CODE.fd", "OVMF32_VARS.fd", {
  targets: [{ architecture: "i386", machines: ["pc-i440fx-*", "pc-q35-*"] }],
  features: ["acpi-s3", "verbose-dynamic"],
});

const codeOf = (text: string, arch: "x86_64" | "i386"): string | undefined =>
  parseDescriptor(text, arch)?.code.path.replace("/usr/share/OVMF/", "");

describe("of Debian's descriptors", () => {
  test.each([
    ["40-edk2-x86_64-secure-enrolled.json", undefined, undefined],
    ["50-edk2-x86_64-secure.json", undefined, undefined],
    ["60-edk2-x86_64.json", "OVMF_CODE_4M.fd", undefined],
    ["50-edk2-i386-secure.json", undefined, undefined],
  ] as const)("%s offers %p for x86_64 and %p for i386", (name, for64, for32) => {
    expect(codeOf(DEBIAN[name], "x86_64")).toBe(for64);
    expect(codeOf(DEBIAN[name], "i386")).toBe(for32);
  });
});

const smm = (features: string[]) =>
  parseDescriptor(descriptor("CODE.fd", "VARS.fd", { features }), "x86_64", true)?.smm;

describe("with Secure Boot, of Debian's descriptors", () => {
  test.each([
    ["40-edk2-x86_64-secure-enrolled.json", "OVMF_CODE_4M.ms.fd"],
    ["50-edk2-x86_64-secure.json", undefined],
    ["60-edk2-x86_64.json", undefined],
  ] as const)("%s offers %p", (name, code) => {
    expect(parseDescriptor(DEBIAN[name], "x86_64", true)?.code.path.replace("/usr/share/OVMF/", "")).toBe(
      code!,
    );
  });

  test("those that require SMM get it", () => {
    expect(smm(["secure-boot", "enrolled-keys", "requires-smm"])).toBe(true);
    expect(smm(["secure-boot", "enrolled-keys"])).toBe(false);
    expect(smm(["secure-boot"])).toBeUndefined();
    expect(smm(["enrolled-keys"])).toBeUndefined();
  });
});

const mapping = (changes: object): Partial<Shape> => ({
  mapping: { ...JSON.parse(descriptor("CODE.fd", "VARS.fd")).mapping, ...changes },
});

const chip = (filename: string) => ({ filename, format: "qcow2" });

describe("a descriptor", () => {
  const of = (changes: Partial<Shape>) => codeOf(descriptor("CODE.fd", "VARS.fd", changes), "x86_64");
  test("is parsed", () => {
    expect(parseDescriptor(descriptor("CODE.fd", "VARS.fd"), "x86_64")).toEqual({
      code: { path: "/usr/share/OVMF/CODE.fd", format: "raw" },
      varsTemplate: { path: "/usr/share/OVMF/VARS.fd", format: "raw" },
      smm: false,
    });
    expect(codeOf(i386Plain, "i386")).toBe("OVMF32_CODE.fd");
    expect(codeOf(i386Plain, "x86_64")).toBeUndefined();
  });

  test.each<[string, Partial<Shape>]>([
    ["features: secure-boot alone", { features: ["secure-boot"] }],
    ["features: amd-sev, as all of Debian's", { features: ["acpi-s3", "amd-sev", "verbose-dynamic"] }],
    ["one target of many", { targets: [Q35_32, Q35] }],
    ["BIOS too", { "interface-types": ["bios", "uefi"] }],
    ["mode: split", mapping({ mode: "split" })],
  ])("with %s is accepted", (_title, changes) => {
    expect(of(changes)).toBe("CODE.fd");
  });

  test.each<[string, Partial<Shape>]>([
    ["features: requires-smm", { features: ["requires-smm"] }],
    ["features: enrolled-keys", { features: ["enrolled-keys"] }],
    ["BIOS only", { "interface-types": ["bios"] }],
    ["device: memory", mapping({ device: "memory" })],
    ["mode: stateless", mapping({ mode: "stateless" })],
    ["mode: combined", mapping({ mode: "combined" })],
    ["no nvram-template", mapping({ "nvram-template": undefined })],
    ["machine: microvm", { targets: [{ architecture: "x86_64", machines: ["microvm"] }] }],
    ["machine: i440fx only", { targets: [{ architecture: "x86_64", machines: ["pc-i440fx-*"] }] }],
    ["architecture: aarch64", { targets: [{ architecture: "aarch64", machines: ["virt-*"] }] }],
    [
      "machine and architecture of different targets",
      { targets: [Q35_32, { architecture: "x86_64", machines: ["microvm"] }] },
    ],
    ["no targets", { targets: [] }],
  ])("with %s is not", (_title, changes) => {
    expect(of(changes)).toBeUndefined();
  });

  test("of qcow2 files keeps their format", () => {
    const text = descriptor(
      "",
      "",
      mapping({ executable: chip("/f/CODE.qcow2"), "nvram-template": chip("/f/VARS.qcow2") }),
    );
    expect(parseDescriptor(text, "x86_64")).toEqual({
      code: { path: "/f/CODE.qcow2", format: "qcow2" },
      varsTemplate: { path: "/f/VARS.qcow2", format: "qcow2" },
      smm: false,
    });
  });
});

describe("the user's own firmware", () => {
  test("is used", () => {
    using temp = new Temp();
    const own = { code: temp.write("CODE,1.fd", "c"), vars: temp.write("VARS 1.fd", "v"), secure: false };
    expect(findFirmware("x86_64", own)).toEqual({
      code: { path: own.code, format: "raw" },
      varsTemplate: { path: own.vars, format: "raw" },
      smm: false,
    });
  });

  test("with Secure Boot requires SMM on a PC, and not on aarch64", () => {
    using temp = new Temp();
    const own = { code: temp.write("CODE.fd", "c"), vars: temp.write("VARS.fd", "v"), secure: true };
    expect(findFirmware("x86_64", own).smm).toBe(true);
    expect(findFirmware("aarch64", own).smm).toBe(false);
  });

  test.each([
    ["without its variables", "/etc/passwd", "", 78],
    ["without its code", "", "/etc/passwd", 78],
    ["that does not exist", "/nowhere/CODE.fd", "/etc/passwd", 66],
    ["whose variables do not exist", "/etc/passwd", "/nowhere/VARS.fd", 66],
  ])("%s is rejected", async (_title, code, vars, status) => {
    expect((await failureOf(() => findFirmware("x86_64", { code, vars, secure: false }))).exitCode).toBe(
      status,
    );
  });
});

/** The second is 2 MiB's: its variables have 128 KiB. The third is qcow2, of 192 KiB. */
function installed(temp: Temp): FirmwareFiles[] {
  const raw = (name: string, bytes: number): FirmwareFiles => ({
    code: { path: temp.write(`${name}_CODE.fd`, "c"), format: "raw" },
    varsTemplate: { path: temp.write(`${name}_VARS.fd`, "v".repeat(bytes)), format: "raw" },
    smm: false,
  });
  const qcow2 = raw("Q", 0);
  const head = Buffer.alloc(104);
  head.write("QFI\xfb", "latin1");
  head.writeUInt32BE(3, 4);
  head.writeBigUInt64BE(196608n, 24);
  qcow2.varsTemplate = { path: temp.write("Q_VARS.qcow2", ""), format: "qcow2" };
  writeFileSync(qcow2.varsTemplate.path, head);
  return [raw("4M", 540672), raw("2M", 131072), qcow2];
}

describe("of several firmwares", () => {
  test.each([
    ["nothing: the best", undefined, 0],
    ["540672 bytes", 540672, 0],
    ["131072 bytes", 131072, 1],
    ["196608 bytes, of a qcow2 template", 196608, 2],
  ] as const)("is chosen by the variables' size: %s", (_title, bytes, index) => {
    using temp = new Temp();
    const all = installed(temp);
    expect(chooseFirmware("x86_64", all, bytes)).toBe(all[index]!);
  });

  test("none fits: 69, with the sizes", async () => {
    using temp = new Temp();
    const failure = await failureOf(() => chooseFirmware("x86_64", installed(temp), 65536));
    expect(failure).toBeInstanceOf(NoFittingFirmware);
    expect(failure.exitCode).toBe(69);
    expect(failure.message).toContain("65536 bytes (found: 540672, 131072, 196608)");
  });

  test("ignores the user's own of another size", () => {
    using temp = new Temp();
    const own = {
      code: temp.write("CODE.fd", "c"),
      vars: temp.write("VARS.fd", "v".repeat(77)),
      secure: false,
    };
    expect(findFirmware("x86_64", own, 77).code.path).toBe(own.code);
    expect(() => findFirmware("x86_64", own, 78)).toThrow("78 bytes (found: 77");
  });
});
