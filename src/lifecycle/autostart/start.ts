/** What systemd and cron run: the start of a VM with the host. */
import { join } from "node:path";
import { aboutVm } from "../../lib/command-line.ts";
import { briefOf, SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { exec } from "../../process/exec.ts";
import { interruption, throwIfInterrupted } from "../../process/signals.ts";
import { replaceVolatile } from "../../store/files.ts";
import { cronRecord, findAutostart, readCronRecord, type AutostartPlan } from "../../vm/autostart.ts";
import type { Context } from "../../vm/context.ts";
import { findHostdir, openVm, requireWork } from "../../vm/find.ts";
import { findQemus } from "../../vm/in-use.ts";
import { systemctl } from "../../vm/systemd.ts";
import { runVm } from "../run.ts";
import { waitUntilReady } from "../wait.ts";
import type { AutostartRequest } from "./request.ts";

/** In the unit's RuntimeDirectory (PIDFile=). */
export const PID_FILE = "pid";

/** The lock may be held by a backup of the run that has ended. */
const LOCK_MS = 600_000;

type Start = Pick<AutostartRequest, "delaySeconds" | "wait">;

/**
 * Starts the VM in the background. Its working files must be there: after a reboot that emptied a directory, or without a
 * filesystem, it is the user who decides on going back to the last snapshot.
 */
export async function startForManager(context: Context, { delaySeconds, wait }: Start): Promise<void> {
  if (delaySeconds > 0 && (await isBooting(context))) await sleep(delaySeconds * 1000);
  requireWork(await openVm(context), "start the VM");
  const directory = context.env.RUNTIME_DIRECTORY;
  if (directory) await (await import("../../vm/confine.ts")).clearUnitLimits(context.prog);
  await runVm(context, { detach: true, lockWaitMs: LOCK_MS });
  const { work } = await openVm(context);
  const [qemu] = work.state === "present" ? findQemus(work) : [];
  if (directory && qemu) replaceVolatile(join(directory, PID_FILE), `${qemu.pid}\n`);
  if (wait === null) return;
  try {
    await waitUntilReady(context, { for: wait }, undefined);
  } catch (error) {
    // The guest runs: it is not ended because it takes longer.
    if (error instanceof SignalError || !(error instanceof VmError)) throw error;
    log.warn(`not waiting any longer: ${briefOf(error)}`);
  }
}

/** Does what starts the VM still start the host? Otherwise this is a restart, or a start by hand. */
async function isBooting(context: Context): Promise<boolean> {
  const manager = findAutostart(context, findHostdir(context))?.manager ?? "system";
  if (manager === "cron") return true;
  const { stdout } = await exec(systemctl(manager === "system", "is-system-running"), { anyStatus: true });
  return /^(initializing|starting)$/.test(stdout.trim());
}

async function sleep(ms: number): Promise<void> {
  const over = Promise.withResolvers<void>();
  interruption.addEventListener("abort", () => over.resolve(), { once: true });
  const timer = setTimeout(over.resolve, ms);
  await over.promise;
  clearTimeout(timer);
  throwIfInterrupted();
}

/** The VMs of this user's crontab, one after the other. @throws 74 if one of them was not started */
export async function startAll(context: Context): Promise<void> {
  const plans = readCronRecord(context).toSorted((a, b) => a.order - b.order);
  if (plans.length === 0) log.info(`no VM is started by cron: there is none in ${cronRecord(context)}`);
  let failed = 0;
  for (const plan of plans)
    try {
      using _hints = aboutVm(plan.directory);
      const of = contextOf(context, plan);
      const { work } = await openVm(of);
      if (work.state === "present" && findQemus(work).length > 0) log.info(`${plan.directory}: runs already`);
      else await startForManager(of, plan);
    } catch (error) {
      if (error instanceof SignalError || !(error instanceof VmError)) throw error;
      failed++;
      log.warn(`${plan.directory}: ${error.message}`);
    }
  if (failed > 0) throw new VmError("io", `${failed} of ${plans.length} VMs were not started`);
}

/** That of a command line for this VM. */
const contextOf = (context: Context, { directory, env }: AutostartPlan): Context => ({
  ...context,
  hostdir: directory,
  options: { ...context.options, hostdir: directory },
  env: { ...context.env, ...env },
  tmpdir: env.TMPDIR ?? context.tmpdir,
});
