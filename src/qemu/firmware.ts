import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { readNamed } from "../lib/read-file.ts";
import { installHint, isThing, PACKAGES } from "../lib/packages.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import type { Arch } from "../machine/types.ts";
import { readImageHeader } from "./image-header.ts";

/** A UEFI firmware on this host: code, and template of the variables. */
export interface FirmwareFiles {
  code: { path: string; format: string };
  varsTemplate: { path: string; format: string };
  /** Its code runs in system management mode. */
  smm: boolean;
}

/** Members of a firmware descriptor that are used here (qemu's docs/interop/firmware.json). */
interface Descriptor {
  "interface-types": string[];
  mapping: {
    device: string;
    mode?: string;
    executable: { filename: string; format: string };
    "nvram-template"?: { filename: string; format: string };
  };
  targets: { architecture: string; machines: string[] }[];
  features: string[];
}

/** A file in a later directory overrides one of the same name in an earlier one (firmware.json). */
const DESCRIPTOR_DIRECTORIES = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];

/** Firmwares that require SMM or have Secure Boot keys enrolled do not boot every disk. */
const SMM = "requires-smm";
const ENROLLED = "enrolled-keys";

/** Features of a firmware that enforces Secure Boot by the distribution's keys (firmware.json, FirmwareFeature). */
const SECURE = ["secure-boot", ENROLLED];

/**
 * Pure: the firmware of a descriptor; undefined if it is not a usable UEFI firmware for this architecture.
 * @param secure with Secure Boot enforced; otherwise without
 */
export function parseDescriptor(text: string, arch: Arch, secure = false): FirmwareFiles | undefined {
  const descriptor = JSON.parse(text) as Descriptor;
  const { architecture, machine } = ARCH[arch].firmwareTarget;
  const { mapping } = descriptor;
  const template = mapping["nvram-template"];
  const fits =
    descriptor["interface-types"].includes("uefi") &&
    mapping.device === "flash" &&
    (mapping.mode ?? "split") === "split" &&
    (secure
      ? SECURE.every((feature) => descriptor.features.includes(feature))
      : ![SMM, ENROLLED].some((feature) => descriptor.features.includes(feature))) &&
    descriptor.targets.some(
      (target) =>
        target.architecture === architecture && target.machines.some((name) => name.startsWith(machine)),
    );
  if (!fits || !template) return undefined;
  return {
    code: { path: mapping.executable.filename, format: mapping.executable.format },
    varsTemplate: { path: template.filename, format: template.format },
    smm: descriptor.features.includes(SMM),
  };
}

function readDescriptors(arch: Arch, secure: boolean): FirmwareFiles[] {
  const files = new Map<string, string>();
  for (const directory of DESCRIPTOR_DIRECTORIES) {
    if (!existsSync(directory)) continue;
    for (const name of readdirSync(directory))
      if (name.endsWith(".json")) files.set(name, join(directory, name));
  }
  return [...files.values()]
    .toSorted((a, b) => (basename(a) < basename(b) ? -1 : 1))
    .flatMap((path) => {
      try {
        return parseDescriptor(readNamed(path).toString(), arch, secure) ?? [];
      } catch {
        // Other descriptors may be usable.
        return [];
      }
    });
}

/** A choice among firmwares: the user's own (OVMF_CODE, OVMF_VARS; empty: none), and whether Secure Boot is enforced. */
export interface FirmwareChoice {
  code: string;
  vars: string;
  secure: boolean;
}

/**
 * Finds a UEFI firmware: the user's own, then by qemu's descriptors, then in known places.
 * @param varsBytes size of the VM's variables, which belong to one build of the firmware: code for variables of another
 *   size does not find the boot entries, and loses what it writes. Absent: any firmware
 * @throws 69 if there is none, or none that fits, 66 if the user's own does not exist
 */
export const findFirmware = (arch: Arch, choice: FirmwareChoice, varsBytes?: number): FirmwareFiles =>
  chooseFirmware(arch, listFirmware(arch, choice), varsBytes, choice.secure);

/** Firmware is installed, but none for variables of this size. */
export class NoFittingFirmware extends VmError {}

/** Chooses the first one that fits. @param all best first @throws as `findFirmware` */
export function chooseFirmware(
  arch: Arch,
  all: readonly FirmwareFiles[],
  varsBytes: number | undefined,
  secure = false,
): FirmwareFiles {
  const found = varsBytes === undefined ? all[0] : all.find((files) => templateBytes(files) === varsBytes);
  if (found) return found;
  const what = secure ? "UEFI firmware with enrolled Secure Boot keys" : "UEFI firmware";
  if (all.length > 0) {
    const sizes = [...new Set(all.flatMap((files) => templateBytes(files) ?? []))].join(", ");
    throw new NoFittingFirmware(
      "unavailable",
      `no installed ${what} for ${arch} guests fits variables of ${varsBytes} bytes (found: ${sizes})`,
      { hint: "set OVMF_CODE and OVMF_VARS to the firmware that the VM was created with" },
    );
  }
  const thing = `uefi-${arch}`;
  // Some packages have no enrolled keys.
  const lacksKeys = secure && listFirmware(arch, { code: "", vars: "", secure: false }).length > 0;
  const install = isThing(thing) && !lacksKeys ? `${installHint(PACKAGES[thing])}; or ` : "";
  throw new VmError("unavailable", `no ${what} for ${arch} guests is installed`, {
    hint: `${install}set OVMF_CODE and OVMF_VARS${secure ? " to files of such firmware" : ""}`,
  });
}

/** Firmwares whose files exist, best first. @throws 66, 78 for the user's own */
function listFirmware(arch: Arch, { code: ownCode, vars: ownVars, secure }: FirmwareChoice): FirmwareFiles[] {
  const raw = (code: string, vars: string): FirmwareFiles => ({
    code: { path: code, format: "raw" },
    varsTemplate: { path: vars, format: "raw" },
    smm: secure && (ARCH[arch] as ArchFacts).secureBoot?.smm === true,
  });
  // Only a descriptor says that keys are enrolled.
  const usual = secure ? [] : ARCH[arch].firmwarePaths.map(([code, vars]) => raw(code, vars));
  const found = [...readDescriptors(arch, secure), ...usual].filter(
    ({ code, varsTemplate }) => existsSync(code.path) && existsSync(varsTemplate.path),
  );
  if (!ownCode && !ownVars) return found;
  if (!ownCode || !ownVars)
    throw new VmError("config", "OVMF_CODE and OVMF_VARS must be set together", {
      hint: "set both to files of the same build of the firmware",
    });
  for (const path of [ownCode, ownVars])
    if (!existsSync(path)) throw new VmError("noInput", `no such firmware file: ${path}`);
  return [raw(ownCode, ownVars), ...found];
}

/** Size of a firmware's variables; undefined if its template cannot be read. */
function templateBytes({ varsTemplate: { path, format } }: FirmwareFiles): number | undefined {
  try {
    return format === "qcow2" ? readImageHeader(path).qcow2?.virtualBytes : statSync(path).size;
  } catch {
    return undefined;
  }
}

/**
 * Finds the boot loader of an architecture whose machines have no built-in firmware.
 * @returns undefined for other architectures
 * @throws 69 if it is not installed
 */
export function findBootLoader(arch: Arch): string | undefined {
  const { bootLoaders }: ArchFacts = ARCH[arch];
  if (!bootLoaders) return undefined;
  const found = bootLoaders.find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new VmError("unavailable", `no boot loader for ${arch} guests is installed`, {
    hint: `${installHint(PACKAGES["u-boot"])}; or boot by UEFI: --uefi`,
  });
}

/** Where distributions install the ROMs of qemu's network cards. */
const ROM_DIRECTORIES = [
  "/usr/share/qemu",
  "/usr/lib/ipxe/qemu",
  "/usr/share/ipxe/qemu",
  "/usr/local/share/qemu",
];

/** The ROM by which firmware boots from a virtio network card. */
export const findNetworkRom = (): string | undefined =>
  ROM_DIRECTORIES.map((directory) => join(directory, "efi-virtio.rom")).find((path) => existsSync(path));
