import { join } from "node:path";
import { reasonOf, SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { callerUid } from "../../lib/trust.ts";
import { exec } from "../../process/exec.ts";
import { findAutostart } from "../../vm/autostart.ts";
import type { Context, Options } from "../../vm/context.ts";
import { findHostdir, openVm } from "../../vm/find.ts";
import { findQemus, findRunning } from "../../vm/in-use.ts";
import { requireOwn } from "../../vm/ownership.ts";
import { systemctl } from "../../vm/systemd.ts";
import { shellLine } from "../../lib/shell.ts";

/** What a unit does not know of a run. */
interface Typed {
  iso?: string | undefined;
  ssh?: boolean | undefined;
  boot?: boolean | undefined;
}

/**
 * Has systemd start the VM in the background if it starts it with the host, so that it watches this run, too. With options
 * that the unit does not have, the run is one by hand.
 * @returns false: the caller starts it
 * @throws 74 if the unit failed
 */
export async function startByUnit(context: Context, { iso, ssh, boot }: Typed): Promise<boolean> {
  const hostdir = findHostdir(context);
  const found = findAutostart(context, hostdir);
  if (!found?.unit) return false;
  const { manager, unit } = found;
  requireOwn(context, hostdir, "run");
  const { work, settings } = await openVm(context);
  if (work.state !== "present" || (await findRunning(work)) !== undefined) return false;
  const why =
    isTyped(context.options) || iso !== undefined || ssh || boot
      ? "it has options of its own"
      : manager === "system" && callerUid() !== 0
        ? `only root can start its unit: ${shellLine(["sudo", "systemctl", "start", unit])}`
        : await findRefusal(manager === "system", unit);
  if (why !== undefined) {
    log.info(`systemd does not watch this run: ${why}`);
    return false;
  }
  const system = manager === "system";
  // Of earlier crashes.
  await exec(systemctl(system, "reset-failed", unit), { anyStatus: true });
  try {
    await exec(systemctl(system, "start", unit));
  } catch (error) {
    if (error instanceof SignalError || !(error instanceof VmError)) throw error;
    throw new VmError("io", `systemd cannot start the VM: ${unit} failed`, {
      hint: `show why: ${shellLine(["journalctl", ...(system ? [] : ["--user"]), "-e", "-u", unit])}`,
      cause: error,
    });
  }
  const pid = findQemus(work)[0]?.pid;
  log.success(
    `${settings.GUESTNAME || hostdir} runs in the background${pid === undefined ? "" : ` (pid ${pid})`}, under systemd; its console: ${join(work.dir, "console.log")}`,
  );
  return true;
}

/** Options of the command line that change the machine. */
function isTyped({ settings, additions }: Options): boolean {
  const { TIMEOUT: _limit, ...others } = settings;
  return Object.keys(others).length > 0 || Object.values(additions).some((list) => list.length > 0);
}

/** Why systemd cannot be asked. */
async function findRefusal(system: boolean, unit: string): Promise<string | undefined> {
  try {
    const { stdout } = await exec(systemctl(system, "show", "--property=LoadState", "--", unit));
    return stdout.trim() === "LoadState=loaded" ? undefined : `it does not know ${unit}`;
  } catch (error) {
    if (error instanceof SignalError) throw error;
    return reasonOf(error);
  }
}
