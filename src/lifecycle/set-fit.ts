import { parseSetting, type RawSettings, type SettingName } from "../config/schema.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { optionsBehind } from "../config/values.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { refuseSecureBoot } from "../vm/firmware.ts";
import { refuseMemoryMax, refuseProcessors, warnOfMemory } from "../vm/fit.ts";
import { refuseTooManyDisks } from "../vm/limits.ts";
import { numberImages } from "../vm/disks.ts";
import { refuseOtherFamily } from "../vm/machine.ts";
import { findSameMac, nicsOf } from "../vm/nics.ts";
import { warnOfMissingPaths } from "./missing-paths.ts";
import type { SettingChanges } from "../vm/store-settings.ts";
import { tpmDeviceOf } from "../vm/tpm.ts";

/**
 * Refuses changes with which the VM would not start or the installed system not run, and those without effect. What
 * depends on this host is a warning.
 * @throws 64, 69 for what the architecture does not have
 */
export async function refuseUnfit(context: Context, vm: Vm, changes: SettingChanges): Promise<void> {
  if (changes.USENETDEV !== undefined && changes.NETWORKS === undefined && vm.settings.NETWORKS.length > 0)
    throw new VmError("usage", "set: USENETDEV has no effect: NETWORKS decides on the cards", {
      hint: `add or remove a card: ${commandLine("nic", "add")}, ${commandLine("nic", "remove", "1")}`,
    });
  const next = withChanged(vm, changes);
  const changed = (...names: readonly SettingName[]): boolean =>
    names.some((name) => changes[name] !== undefined);
  if (changed("QEMUARCH")) refuseOtherFamily(next);
  if (changed("QEMUARCH", "UEFI", "SECURE_BOOT", "TPM")) {
    refuseSecureBoot(next.settings);
    tpmDeviceOf(next.settings);
  }
  if (changed("MAC", "NETWORKS")) refuseDuplicateMac(next);
  if (changed("MEMORY")) warnOfMemory(next);
  if (changed("MEMORY", "MEMORY_MAX")) refuseMemoryMax("change settings", { settings: next.settings });
  if (
    changed("OVMF_CODE", "OVMF_VARS") &&
    (next.settings.OVMF_CODE === "") !== (next.settings.OVMF_VARS === "")
  )
    log.warn("OVMF_CODE and OVMF_VARS must be set together: the VM does not start with one of them");
  warnOfMissingPaths(changes as RawSettings);
  if (changed("SOCKETS", "CORES", "QEMUARCH", "SHARES")) refuseBeyondLimits(next);
  const options = changed("SOCKETS", "CORES") && optionsBehind(next.raw.CORES) !== "";
  if (options || changed("CPU", "ACCEL", "QEMUARCH"))
    await refuseProcessors("change settings", context, next);
}

/** The VM with changed values; of removed ones it is not known here what will apply. */
function withChanged(vm: Vm, changes: SettingChanges): Vm {
  const given = Object.entries(changes).filter(
    (change): change is [SettingName, SettingValue] => change[1] !== undefined,
  );
  const parsed = given.flatMap(([name, value]) => {
    const result = parseSetting(name, value);
    return "value" in result ? [[name, result.value]] : [];
  });
  return {
    ...vm,
    raw: { ...vm.raw, ...Object.fromEntries(given) },
    settings: { ...vm.settings, ...(Object.fromEntries(parsed) as Partial<Vm["settings"]>) },
  };
}

function refuseDuplicateMac({ settings }: Vm): void {
  const same = findSameMac(nicsOf(settings));
  if (same)
    throw new VmError(
      "usage",
      `set: cards ${same.numbers.join(" and ")} would have the same MAC address, ${same.mac}`,
    );
}

function refuseBeyondLimits({ settings }: Vm): void {
  const numbers = numberImages(settings);
  const disks = settings.IMAGES.map(({ bus }, index) => ({ bus, number: numbers[index]! }));
  refuseTooManyDisks("change settings", { settings }, disks);
}
