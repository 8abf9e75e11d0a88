import { statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { commandLine } from "../../lib/command-line.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { callerUid } from "../../lib/trust.ts";
import { requireVm } from "../../store/no-vm.ts";
import { findAutostart, type Autostart, type AutostartPlan, type Manager } from "../../vm/autostart.ts";
import type { Context } from "../../vm/context.ts";
import { findHostdir, openVm, requireWork, type Vm } from "../../vm/find.ts";
import { findRunning } from "../../vm/in-use.ts";
import { effectiveForwards } from "../../vm/nics.ts";
import { requireSsh } from "../../vm/ssh-forward.ts";
import { requireOwn } from "../../vm/ownership.ts";
import { findLingerProblem, isSystemdRunning, ownPath } from "../../vm/systemd.ts";
import { refuseTemplate } from "../../vm/template.ts";
import { isVolatile } from "../../vm/volatile.ts";
import { installCron, removeCron } from "./cron.ts";
import type { AutostartRequest } from "./request.ts";
import { installUnit, removeUnit } from "./units.ts";

/** @throws 73 if a reboot empties the VM's directory or that of its working files */
export async function switchOn(context: Context, request: AutostartRequest): Promise<void> {
  const hostdir = findHostdir(context);
  requireVm(hostdir);
  const manager = chooseManager(request);
  const { uid } = statSync(hostdir);
  // The unit acts as its owner.
  if (manager !== "system" || uid === 0) requireOwn(context, hostdir, "autostart");
  const vm = await openVm(context);
  refuseTemplate(vm, "autostart");
  if (request.wait === "ssh") requireSsh(effectiveForwards(vm.settings));
  await requireLasting(vm);
  const plan = buildPlan(context, vm, request, manager === "system" && uid !== 0 ? uid : undefined);
  const before = findAutostart(context, hostdir);
  if (before && before.manager !== manager) await turnOff(context, before);
  if (manager === "cron") await installCron(context, plan);
  else
    await installUnit(context, manager === "system", plan).catch((error: unknown) => {
      throw withoutSystemd(error);
    });
  log.success(`${vm.settings.GUESTNAME || hostdir} is started with the host, by ${describeManager(manager)}`);
  const linger = manager === "user" ? findLingerProblem() : undefined;
  if (linger !== undefined) log.warn(linger);
  const running = vm.work.state === "present" && (await findRunning(vm.work)) !== undefined;
  if (running && manager !== "cron" && before === undefined)
    log.info(`  systemd watches it from its next start: ${commandLine("restart")}`);
}

/** @param typed HOSTDIR of a VM that no longer exists */
export async function switchOff(context: Context, typed: string | undefined): Promise<void> {
  const directory = typed === undefined ? findHostdir(context) : resolve(context.cwd, typed);
  const found = findAutostart(context, directory);
  if (found) return turnOff(context, found, true);
  if (typed === undefined) requireVm(directory);
  log.info(`the VM in ${directory} is not started with the host`);
}

async function turnOff(context: Context, { manager, unit, plan }: Autostart, report = false): Promise<void> {
  requireRoot(manager);
  if (manager === "cron") await removeCron(context, plan.directory);
  else {
    const { active } = await removeUnit(context, manager === "system", unit!);
    if (active && report) log.info("  its present run stays under systemd until it is off");
  }
  if (report) log.success(`the VM in ${plan.directory} is no longer started with the host`);
}

function chooseManager({ manager }: AutostartRequest): Manager {
  const chosen = manager ?? (!isSystemdRunning() ? "cron" : callerUid() === 0 ? "system" : "user");
  requireRoot(chosen);
  return chosen;
}

/** @throws 73 */
function requireRoot(manager: Manager): void {
  if (manager !== "system" || callerUid() === 0) return;
  throw new VmError("cannotCreate", "cannot change the system's units: only root can", {
    hint: `act as root: sudo ${commandLine("autostart")} …; or use your own systemd: --user`,
  });
}

const describeManager = (manager: Manager): string =>
  manager === "cron" ? "cron" : manager === "system" ? "systemd" : "your systemd";

const refuseVolatile = (directory: string, hint: string): VmError =>
  new VmError("cannotCreate", `cannot turn autostart on: a reboot empties ${directory}`, { hint });

async function requireLasting(vm: Vm): Promise<void> {
  const { hostdir } = vm;
  if (isVolatile(hostdir))
    throw refuseVolatile(
      hostdir,
      `move the VM to a directory that lasts: ${commandLine("clone", "--keep-guest", "DIR")}`,
    );
  const work = requireWork(vm, "turn autostart on");
  if (work.inplace || !isVolatile(dirname(work.dir))) return;
  const stop = (await findRunning(work)) === undefined ? [] : [commandLine("stop")];
  const words = [...stop, commandLine("move-work"), commandLine("autostart", "on")];
  throw refuseVolatile(
    dirname(work.dir),
    `move the working files to a directory that lasts: ${words.join(" && ")}`,
  );
}

function buildPlan(
  context: Context,
  { hostdir, settings, work }: Vm,
  request: AutostartRequest,
  uid: number | undefined,
): AutostartPlan {
  const names = ["TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] as const;
  // Those of the caller are not those of another user.
  const given = uid === undefined ? names.flatMap((name) => [[name, context.env[name] ?? ""] as const]) : [];
  return {
    directory: hostdir,
    guest: settings.GUESTNAME,
    order: request.order,
    delaySeconds: request.delaySeconds,
    restart: request.restart,
    wait: request.wait,
    stopSeconds: request.timeoutSeconds ?? settings.STOP_TIMEOUT,
    program: ownPath(context, "the unit"),
    env: Object.fromEntries(given.filter(([, value]) => value !== "")),
    uid,
    working: work.state === "present" && !work.inplace ? dirname(work.dir) : hostdir,
  };
}

/** Without systemd, the hint is to use cron. */
function withoutSystemd(error: unknown): unknown {
  if (
    isSystemdRunning() ||
    error instanceof SignalError ||
    !(error instanceof VmError) ||
    error.code !== "io"
  )
    return error;
  return new VmError("unavailable", "cannot turn autostart on: systemd is not running on this host", {
    hint: `use a crontab: ${commandLine("autostart", "on", "--cron")}`,
    cause: error,
  });
}
