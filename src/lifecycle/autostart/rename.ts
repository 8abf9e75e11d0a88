import { basename, dirname } from "node:path";
import { commandLine, commandLineFor } from "../../lib/command-line.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { callerUid } from "../../lib/trust.ts";
import { autostartUnit, findAutostart, type Autostart } from "../../vm/autostart.ts";
import type { Context } from "../../vm/context.ts";
import { findHostdir, openVm } from "../../vm/find.ts";
import type { RenamedVm } from "../rename.ts";
import { changeRecord } from "./cron.ts";
import { optionsOf } from "./request.ts";
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
        hint: `turn that on again: ${commandLineFor(to, "autostart", "on", ...optionsOf(found.plan))}`,
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

/** Has the unit wait for the filesystem that the working files were moved to. */
export async function followWork(context: Context): Promise<void> {
  const hostdir = findHostdir(context);
  const found = findAutostart(context, hostdir);
  if (!found || found.manager === "cron") return;
  const { work } = await openVm(context);
  const working = work.state === "present" && !work.inplace ? dirname(work.dir) : hostdir;
  if (working === found.plan.working) return;
  const system = found.manager === "system";
  if (system && callerUid() !== 0)
    return log.warn(
      `${found.unit} waits for the filesystem of ${found.plan.working} still; as root: ${commandLine("autostart", "on", "--system", ...optionsOf(found.plan))}`,
    );
  await installUnit(context, system, { ...found.plan, working });
}
