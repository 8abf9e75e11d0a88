/** Autostart without systemd: a line `@reboot` in the user's crontab, which starts all VMs of a record. */
import { closeSync, mkdirSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { CRONS, quoteForCron } from "../../lib/cron.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { log } from "../../lib/log.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { exec, findProgram, ProcessError, requireProgram } from "../../process/exec.ts";
import { runsProcess } from "../../process/holders.ts";
import { createMemoryFile } from "../../process/memory-file.ts";
import { removeAbandoned } from "../../store/abandoned.ts";
import { fileError, replaceFile } from "../../store/files.ts";
import { PARTIAL } from "../../store/layout.ts";
import { lockDirectory } from "../../store/lock.ts";
import { remove } from "../../store/remove.ts";
import { cronRecord, readCronRecord, type AutostartPlan } from "../../vm/autostart.ts";
import type { Context } from "../../vm/context.ts";

const LOCK_WAIT_MS = 10_000;
const NEEDS_CRON = "install cron, or use systemd: --user, --system";

/** @throws 69 without crontab(1), or for a VM that cron cannot restart */
export async function installCron(context: Context, plan: AutostartPlan): Promise<void> {
  requireProgram("crontab", NEEDS_CRON);
  if (plan.restart)
    throw new VmError("unavailable", "cannot restart the VM after a crash: cron does not watch it", {
      hint: "leave out --restart, or use systemd: --user, --system",
    });
  await changeRecord(context, plan.directory, plan);
  if (runsProcess(CRONS) === false) log.warn("no cron is running, which would start the VM with the host");
  log.info("  cron starts the VM, but at a shutdown of the host nothing shuts the guest down: vm stop");
}

export const removeCron = (context: Context, directory: string): Promise<void> =>
  changeRecord(context, directory, undefined);

/** Replaces the plan of one VM, then the line in the crontab. */
export async function changeRecord(
  context: Context,
  directory: string,
  plan: AutostartPlan | undefined,
): Promise<void> {
  const path = cronRecord(context);
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  using _lock = await lockDirectory(dirname(path), {
    command: "change autostart",
    waitMs: LOCK_WAIT_MS,
    busy: `${dirname(path)} is locked by another process`,
  });
  removeAbandoned(dirname(path), PARTIAL);
  const others = readCronRecord(context).filter((one) => one.directory !== directory);
  const vms = plan ? [...others, plan] : others;
  // A line without a record starts nothing, and a record without a line would seem to.
  if (vms.length > 0) await writeLine(context, vms[0]!.program);
  try {
    if (vms.length === 0) remove(path);
    else replaceFile(path, toJson({ format: 1, vms }));
  } catch (error) {
    throw fileError(`cannot write ${path}`, error);
  }
  if (vms.length === 0) await writeLine(context, undefined);
}

/** Removes the line of an interrupted change. */
export async function removeLeftLine(context: Context): Promise<void> {
  if (findProgram("crontab") === undefined || lstatOf(cronRecord(context))) return;
  await writeLine(context, undefined).catch((error: unknown) => {
    // Without the right to a crontab, there is none.
    if (error instanceof SignalError || !(error instanceof ProcessError)) throw error;
  });
}

/** @param program absent: no line */
async function writeLine(context: Context, program: string | undefined): Promise<void> {
  const marker = ` # autostart of ${context.prog}`;
  const present = await readCrontab();
  const others = present.filter((line) => !line.endsWith(marker));
  const config = context.env.XDG_CONFIG_HOME;
  // That of cron is of the user database, and the record may be in another: sudo may leave HOME alone.
  const settings = [`HOME=${quoteForCron(context.home)}`];
  if (config) settings.push(`XDG_CONFIG_HOME=${quoteForCron(config)}`);
  const own =
    program === undefined
      ? []
      : [`@reboot ${[...settings, quoteForCron(program), "autostart", "start-all"].join(" ")}${marker}`];
  const lines = [...others, ...own];
  if (lines.join("\n") === present.join("\n")) return;
  const fd = createMemoryFile("crontab", 0);
  try {
    // At a given place: the offset, at which crontab(1) begins to read, stays at the beginning.
    writeSync(fd, lines.map((line) => `${line}\n`).join(""), 0);
    await exec(["crontab", "-"], { stdin: fd, what: "cannot change the crontab" });
  } finally {
    closeSync(fd);
  }
}

/** What crontab(1) of Vixie's cron, of busybox and of others says if there is none; the status is that of other errors. */
const NO_CRONTAB = /\bno (f?cron|such file)/i;

/** @throws 74 if it cannot be read: it would be replaced */
async function readCrontab(): Promise<string[]> {
  const result = await exec(["crontab", "-l"], { anyStatus: true });
  if (result.status !== 0 && !NO_CRONTAB.test(result.stderr))
    throw new ProcessError("cannot read the crontab", result);
  return result.stdout === "" ? [] : result.stdout.replace(/\n$/, "").split("\n");
}
