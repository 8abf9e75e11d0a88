/** Autostart without systemd: a line `@reboot` in the user's crontab, which starts all VMs of a record. */
import { closeSync, mkdirSync, mkdtempSync, openSync } from "node:fs";
import { dirname, join } from "node:path";
import { quoteForCron } from "../../lib/cron.ts";
import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { log } from "../../lib/log.ts";
import { exec, requireProgram } from "../../process/exec.ts";
import { fileError, replaceFile, writeNew } from "../../store/files.ts";
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
  const others = readCronRecord(context).filter((one) => one.directory !== directory);
  const vms = plan ? [...others, plan] : others;
  try {
    if (vms.length === 0) remove(path);
    else replaceFile(path, toJson({ format: 1, vms }));
  } catch (error) {
    throw fileError(`cannot write ${path}`, error);
  }
  await writeLine(context, vms[0]?.program);
}

/** @param program absent: no line */
async function writeLine(context: Context, program: string | undefined): Promise<void> {
  const marker = ` # autostart of ${context.prog}`;
  // Its status is 1 without a crontab.
  const { stdout } = await exec(["crontab", "-l"], { anyStatus: true });
  const others = stdout.split("\n").filter((line) => line !== "" && !line.endsWith(marker));
  const config = context.env.XDG_CONFIG_HOME;
  const settings = config ? [`XDG_CONFIG_HOME=${quoteForCron(config)}`] : [];
  const own =
    program === undefined
      ? []
      : [`@reboot ${[...settings, quoteForCron(program), "autostart", "start-all"].join(" ")}${marker}`];
  const lines = [...others, ...own];
  if (lines.join("\n") === stdout.trimEnd()) return;
  const scratch = mkdtempSync(join(context.tmpdir, "vm-cron-"));
  try {
    const file = join(scratch, "crontab");
    writeNew(file, lines.map((line) => `${line}\n`).join(""));
    const fd = openSync(file, "r");
    try {
      await exec(["crontab", "-"], { stdin: fd, what: "cannot change the crontab" });
    } finally {
      closeSync(fd);
    }
  } finally {
    remove(scratch);
  }
}
