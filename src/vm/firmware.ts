import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import type { Firmware } from "../machine/types.ts";
import { findFirmware, MAX_VARS_BYTES, NoFittingFirmware, type FirmwareFiles } from "../qemu/firmware.ts";
import { findVariablesDamage, readVariables } from "../qemu/uefi-variables.ts";
import { shellQuote } from "../lib/shell.ts";
import { lstatOf, readNamed } from "../lib/read-file.ts";
import { replaceFile } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Vm } from "./find.ts";
import type { Workdir } from "../store/workdir.ts";

/**
 * The firmware of a VM's UEFI boot, with its variables. Creates the variables for a VM that booted by BIOS before.
 * @throws as `findFirmwareFor`
 */
export function resolveFirmware(vm: Vm, work: Workdir): Firmware {
  const path = join(work.dir, WORK.efivars);
  const files = findFirmwareFor(vm, work);
  const { OVMF_CODE } = vm.settings;
  if (!lstatOf(path)) {
    replaceFile(path, readNamed(files.varsTemplate.path, MAX_VARS_BYTES));
    return { code: files.code, vars: { path, format: files.varsTemplate.format } };
  }
  const { format, bytes } = readVariables(path);
  if (OVMF_CODE !== "" && files.code.path !== OVMF_CODE)
    warnOnce(
      `ignoring OVMF_CODE=${OVMF_CODE}: it does not fit this VM's variables of ${bytes} bytes; using ${files.code.path}`,
    );
  return { code: files.code, vars: { path, format } };
}

/**
 * Finds the firmware for a VM, by the size of its variables if it has some.
 * @throws 69 if none fits, 74 for damaged variables
 */
export function findFirmwareFor({ settings }: Vm, work: Workdir): FirmwareFiles {
  const { OVMF_CODE, OVMF_VARS, QEMUARCH } = settings;
  const own = { code: OVMF_CODE, vars: OVMF_VARS };
  const path = join(work.dir, WORK.efivars);
  if (!lstatOf(path)) return findFirmware(QEMUARCH, own);
  const damage = findVariablesDamage(path);
  if (damage !== undefined)
    throw new VmError("io", `cannot use the UEFI variables ${path}: ${damage}`, {
      hint: `restore a snapshot; or ${hintNewVariables(path)}`,
    });
  try {
    return findFirmware(QEMUARCH, own, readVariables(path).bytes);
  } catch (error) {
    if (!(error instanceof NoFittingFirmware)) throw error;
    throw new VmError("unavailable", `cannot boot with the UEFI variables ${path}: ${error.message}`, {
      cause: error,
      hint: `${error.hint}; or ${hintNewVariables(path)}`,
    });
  }
}

const hintNewVariables = (path: string): string =>
  `start with new variables, without boot entries: mv ${shellQuote(path)} ${shellQuote(`${path}.old`)}`;
