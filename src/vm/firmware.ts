import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import type { Settings } from "../config/schema.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import type { Firmware } from "../machine/types.ts";
import {
  findFirmware,
  NoFittingFirmware,
  type FirmwareChoice,
  type FirmwareFiles,
} from "../qemu/firmware.ts";
import {
  findPlatformKey,
  findVariablesDamage,
  MAX_VARS_BYTES,
  readVariables,
} from "../qemu/uefi-variables.ts";
import { shellQuote } from "../lib/shell.ts";
import { lstatOf, readNamed } from "../lib/read-file.ts";
import { replaceFile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Vm } from "./find.ts";
import type { Workdir } from "../store/workdir.ts";

type FirmwareSettings = Pick<Settings, "OVMF_CODE" | "OVMF_VARS" | "SECURE_BOOT">;

export const firmwareChoice = ({ OVMF_CODE, OVMF_VARS, SECURE_BOOT }: FirmwareSettings): FirmwareChoice => ({
  code: OVMF_CODE,
  vars: OVMF_VARS,
  secure: SECURE_BOOT,
});

/** @throws 69 for an architecture without Secure Boot, 64 for a BIOS */
export function refuseSecureBoot({
  SECURE_BOOT,
  QEMUARCH,
  UEFI,
}: Pick<Settings, "SECURE_BOOT" | "QEMUARCH" | "UEFI">): void {
  if (!SECURE_BOOT) return;
  const { secureBoot, biosName }: ArchFacts = ARCH[QEMUARCH];
  if (!secureBoot)
    throw new VmError("unavailable", `${QEMUARCH} guests have no Secure Boot`, {
      hint: "leave out --secure-boot; SECURE_BOOT of a settings file is overridden by SECURE_BOOT= in guest.env",
    });
  if (!UEFI)
    throw new VmError("usage", `Secure Boot needs UEFI, and this VM boots by ${biosName}`, {
      hint: "boot by UEFI: --uefi; or leave Secure Boot out: --no-secure-boot",
    });
}

/**
 * The firmware of a VM's UEFI boot, with its variables. Creates the variables for a VM that booted by BIOS before.
 * @throws as `findFirmwareFor`
 */
export function resolveFirmware(vm: Vm, work: Workdir): Firmware {
  const path = join(work.dir, WORK.efivars);
  const files = findFirmwareFor(vm, work);
  const { code, smm } = files;
  const { OVMF_CODE } = vm.settings;
  if (!lstatOf(path)) {
    replaceFile(path, readNamed(files.varsTemplate.path, MAX_VARS_BYTES));
    return { code, vars: { path, format: files.varsTemplate.format }, smm };
  }
  const { format, bytes } = readVariables(path);
  if (OVMF_CODE !== "" && files.code.path !== OVMF_CODE)
    warnOnce(
      `ignoring OVMF_CODE=${OVMF_CODE}: it does not fit this VM's variables of ${bytes} bytes; using ${files.code.path}`,
    );
  warnOfKeys(vm.settings, work);
  return { code, vars: { path, format }, smm };
}

/**
 * The keys of a VM's variables decide, too: those of a VM that was created without Secure Boot have none, unless its user
 * is about to enrol some; and with keys many firmwares enforce it in any case.
 * @param running qemu has the variables open
 */
export function warnOfKeys(
  { SECURE_BOOT }: Pick<Settings, "SECURE_BOOT">,
  { dir }: Workdir,
  running = false,
): void {
  const path = join(dir, WORK.efivars);
  const enrolled = findPlatformKey(path);
  if (enrolled === undefined || enrolled === SECURE_BOOT) return;
  const [state, keys] = SECURE_BOOT ? ["is not", "no platform key is"] : ["may still be", "keys are"];
  warnOnce(
    `Secure Boot ${state} enforced: ${keys} enrolled in the UEFI variables; to ${hintNewVariables(path, running)}`,
  );
}

/** Does the VM's firmware enforce Secure Boot? With enrolled keys many do in any case. */
export const enforcesSecureBoot = ({ settings }: Pick<Vm, "settings">, { dir }: Workdir): boolean =>
  settings.SECURE_BOOT || findPlatformKey(join(dir, WORK.efivars)) === true;

/**
 * Finds the firmware for a VM, by the size of its variables if it has some.
 * @throws 69 if none fits, 74 for damaged variables
 */
export function findFirmwareFor({ settings }: Vm, work: Workdir): FirmwareFiles {
  const { QEMUARCH } = settings;
  const choice = firmwareChoice(settings);
  const path = join(work.dir, WORK.efivars);
  if (!lstatOf(path)) return findFirmware(QEMUARCH, choice);
  const damage = findVariablesDamage(path);
  if (damage !== undefined)
    throw new VmError("io", `cannot use the UEFI variables ${path}: ${damage}`, {
      hint: `restore a snapshot; or ${hintNewVariables(path)}`,
    });
  try {
    return findFirmware(QEMUARCH, choice, readVariables(path).bytes);
  } catch (error) {
    if (!(error instanceof NoFittingFirmware)) throw error;
    throw new VmError("unavailable", `cannot boot with the UEFI variables ${path}: ${error.message}`, {
      cause: error,
      hint: `${error.hint}; or ${hintNewVariables(path)}`,
    });
  }
}

/** A running qemu would keep the renamed file. */
const hintNewVariables = (path: string, running = false): string =>
  `start with new variables, without boot entries: ${running ? `${commandLine("stop")} && ` : ""}mv ${shellQuote(path)} ${shellQuote(`${path}.old`)}`;
