import { basename } from "node:path";
import { commandLineFor } from "../../lib/command-line.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { autostartUnit, findAutostart, type Autostart } from "../../vm/autostart.ts";
import type { Context } from "../../vm/context.ts";
import type { RenamedVm } from "../rename.ts";
import { changeRecord } from "./cron.ts";
import { installUnit, removeUnit } from "./units.ts";

/** Has a renamed VM, which is off, be started with the host as before. */
export async function renameAutostart(context: Context, { from, to }: RenamedVm): Promise<void> {
  const found = from === to ? undefined : findAutostart(context, from);
  if (!found) return;
  try {
    await moveAutostart(context, found, from, to);
  } catch (error) {
    if (error instanceof SignalError || !(error instanceof VmError)) throw error;
    throw new VmError(
      "io",
      `the VM is renamed, but it is not started with the host any more: ${error.message}`,
      {
        cause: error,
        hint: `turn that on again: ${commandLineFor(to, "autostart", "on")}`,
      },
    );
  }
}

async function moveAutostart(context: Context, found: Autostart, from: string, to: string): Promise<void> {
  const { manager, unit, plan } = found;
  const working = plan.working === from ? to : plan.working;
  const moved = { ...plan, directory: to, guest: basename(to), working };
  if (manager === "cron") {
    await changeRecord(context, to, moved);
    return changeRecord(context, from, undefined);
  }
  const system = manager === "system";
  await installUnit(context, system, moved);
  await removeUnit(context, system, unit!);
  log.info(`  ${unit} is ${autostartUnit(context.prog, to)} now`);
}
