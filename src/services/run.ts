import { chmodSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log, warnOnce } from "../lib/log.ts";
import type { Machine } from "../machine/types.ts";
import { start, type Child } from "../process/exec.ts";
import { firstSignal, signalError, takeSignals, type StopSignal } from "../process/signals.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import { lastWords, launchQemu, type MachineEnd, type RunningMachine } from "../qemu/launch.ts";
import { probeQemu } from "../qemu/probe.ts";
import { buildRunScript } from "../qemu/script.ts";
import { ARCH } from "../machine/arch.ts";
import { powerDown, quit } from "../qmp/commands.ts";
import { createFile, lstatOf, remove, replaceFile } from "../store/files.ts";
import { RUN_FILES, WORK } from "../store/layout.ts";
import { updateMark, type RunEnd } from "../store/mark.ts";
import { describeGone } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { portChosen, requireFreeForwards } from "./display.ts";
import { resolveMachine, type Cd } from "./machine.ts";
import { Media } from "./media.ts";
import { refuseRunning, withVm, type Present, type Vm } from "./open.ts";
import { restoreSnapshot } from "./restore.ts";
import { TroubleWatch } from "./trouble.ts";
import { describeAddress, describeViewing, hasViewer, viewerFile } from "./viewer.ts";

/** Another VM may take a free port between our look and qemu's. */
const PORT_TRIES = 5;

/** Waits this long for the lock when the guest is off: what was learned must be written down. */
const FINISH_WAIT_MS = 60_000;

interface Started {
  vm: Vm;
  work: Present;
  machine: RunningMachine;
  firstTime: boolean;
}

/**
 * Runs the VM in the foreground until the guest is off.
 * @param iso a CD named on the command line: attached and booted once
 * @throws 128+N when we were told to stop, 74 when the guest did not power itself off
 */
export async function runVm(context: Context, iso?: string): Promise<void> {
  const run = await withVm(context, "run", async (found) => {
    // Before anything is restored: a mistyped command ends here.
    const isoPath = iso === undefined ? undefined : await new Media(context, found).findIso(iso);
    const vm = await ensureWork(context, found);
    return startVm(context, vm, vm.work as Present, isoPath);
  });
  const stop = await waitForEnd(run, run.vm.settings.STOP_TIMEOUT);
  const end = await run.machine.ended;
  await withVm(context, "finish the run", async (vm) => finishRun(vm, run, end, stop), FINISH_WAIT_MS);
}

/** [compat] Without working files the last snapshot is restored first. */
async function ensureWork(context: Context, vm: Vm): Promise<Vm> {
  if (vm.work.state === "present") return vm;
  log.info(vm.work.state === "gone" ? describeGone(vm.work) : `the VM in ${vm.hostdir} has no working files`);
  return restoreSnapshot(context, vm, undefined);
}

async function chooseCd(
  vm: Vm,
  media: Media,
  firstTime: boolean,
  iso: string | undefined,
): Promise<Cd | undefined> {
  if (iso !== undefined) return { path: iso, first: true };
  const { ISO, KEEPCD } = vm.settings;
  if (ISO === "" || !(firstTime || KEEPCD)) return undefined;
  return { path: await media.findIso(ISO), first: firstTime };
}

async function startVm(context: Context, vm: Vm, work: Present, iso: string | undefined): Promise<Started> {
  const firstTime = lstatOf(join(work.dir, WORK.firstTime)) !== undefined;
  const media = new Media(context, vm);
  const cd = await chooseCd(vm, media, firstTime, iso);
  await refuseRunning(work, "run");
  const capabilities = await probeQemu(ARCH[vm.settings.QEMUARCH].binary, context.cacheDirectory);
  if (vm.settings.USENETDEV) await requireFreeForwards(vm.settings.FORWARDS);
  if (process.getuid!() === 0) warnOnce("running as root: shares and jobs act with root's rights");
  for (let attempt = 1; ; attempt++) {
    const resolved = await resolveMachine(context, vm, work, media, cd, capabilities);
    const argv = buildQemuArgv(resolved, capabilities);
    try {
      const machine = await launch(context, work, resolved, argv);
      return { vm, work, machine, firstTime };
    } catch (error) {
      const logPath = join(work.dir, WORK.qemuLog);
      const { display } = resolved;
      const onPort = "at" in display && "port" in display.at;
      const portRace = onPort && /address already in use|spice server/i.test(lastWords(logPath));
      removeRunFiles(work);
      if (!portRace || portChosen(vm) || attempt === PORT_TRIES) throw error;
    }
  }
}

async function launch(
  context: Context,
  work: Present,
  resolved: Machine,
  argv: string[],
): Promise<RunningMachine> {
  const script = join(work.dir, WORK.runScript);
  replaceFile(
    script,
    buildRunScript(
      argv,
      work.dir,
      `Runs the VM ${resolved.name}; written by ${context.prog} ${context.version}`,
    ),
  );
  chmodSync(script, 0o700);
  const logPath = join(work.dir, WORK.qemuLog);
  rmSync(logPath, { force: true });
  updateMark(work.dir, { lastRun: "unknown" });
  const trouble = new TroubleWatch(work.dir);
  const machine = await launchQemu({
    argv,
    directory: work.dir,
    monitor: join(work.dir, WORK.monitor),
    logFd: createFile(logPath),
    logPath,
    onEvent: (event) => trouble.hear(event),
  });
  trouble.qmp = machine.qmp;
  void machine.ended.then(() => trouble[Symbol.dispose]());
  const viewer = showScreen(context, work, resolved);
  if (viewer) endWithGuest(viewer, machine);
  return machine;
}

/** A viewer whose guest is off has nothing to show, but a question to ask, and we would wait for it. */
function endWithGuest(viewer: Child, { ended }: RunningMachine): void {
  const closed = viewer.done.then(() => true);
  void ended.then(async () => {
    if (!(await Promise.race([closed, false]))) viewer.kill("SIGTERM");
  });
}

/** Opens a viewer in a desktop session; elsewhere says how to look. */
function showScreen(context: Context, work: Present, { display, name }: Machine): Child | undefined {
  if (!("at" in display)) {
    log.info(
      `${name} runs without a display; its serial console is kept in ${join(work.dir, WORK.consoleLog)}`,
    );
    return undefined;
  }
  const file = viewerFile(work, display.kind);
  if (hasViewer(context, display))
    return start(["remote-viewer", file], { stdout: "ignore", stderr: "ignore", keepOnInterrupt: true });
  log.info(`${name} shows its screen ${describeAddress(display)}`);
  for (const line of describeViewing(context, hostname(), file, display)) log.info(`  ${line}`);
  if (display.passwordFile) log.info(`  its password is in ${display.passwordFile}`);
  return undefined;
}

/**
 * Waits for qemu's end. The first stop signal presses the power button, the second one ends qemu.
 * @returns the first signal, if there was one
 */
async function waitForEnd({ machine }: Started, stopTimeoutSeconds: number): Promise<StopSignal | undefined> {
  let first: StopSignal | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const end = (): void => {
    void quit(machine.qmp);
    // A qemu that does not listen to QMP any more flushes its images on SIGTERM.
    setTimeout(() => machine.kill("SIGTERM"), 2000).unref();
    setTimeout(() => machine.kill("SIGKILL"), 30_000).unref();
  };
  const take = (signal: StopSignal): void => {
    if (first) {
      log.info("ending it now");
      end();
      return;
    }
    first = signal;
    log.info(
      `asking the guest to power off; once more ends it${signal === "SIGINT" ? "" : `, and so do ${stopTimeoutSeconds} seconds`}`,
    );
    powerDown(machine.qmp).catch(() => {});
    if (signal !== "SIGINT") timer = setTimeout(end, stopTimeoutSeconds * 1000);
  };
  using _taken = takeSignals(take);
  // One that came while qemu was being started found nothing in the guest to save.
  first = firstSignal();
  if (first) end();
  await machine.ended;
  clearTimeout(timer);
  return first;
}

function removeRunFiles(work: Present): void {
  for (const name of RUN_FILES) remove(join(work.dir, name));
}

function describeEnd({ shutdown, status, signal }: MachineEnd): string {
  if (shutdown) return `qemu ended because of ${shutdown.reason}`;
  return signal ? `qemu was killed by ${signal}` : `qemu ended by itself with status ${status}`;
}

/** Writes down how the run ended, and fails unless the guest powered itself off. */
function finishRun(
  now: Vm,
  { work, firstTime }: Started,
  end: MachineEnd,
  stop: StopSignal | undefined,
): void {
  if (now.work.state !== "present" || now.work.mark.created !== work.mark.created)
    throw new VmError("io", "the guest was ended, and its working files were destroyed meanwhile");
  const reason = end.shutdown?.reason;
  const lastRun: RunEnd =
    reason === "guest-shutdown" ? "powered-off" : reason === "guest-reset" ? "reset" : "killed";
  updateMark(work.dir, { lastRun });
  removeRunFiles(work);
  if (stop) throw signalError(stop, `the run was ended by ${stop}`);
  if (lastRun === "killed")
    throw new VmError("io", `the guest did not power itself off: ${describeEnd(end)}`, {
      hint: `its disks are as after a power cut; qemu's own words: ${join(work.dir, WORK.qemuLog)}`,
    });
  if (firstTime) remove(join(work.dir, WORK.firstTime));
}
