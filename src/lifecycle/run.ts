import { chmodSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { hasLimits, type DiskLimit } from "../config/machine-values.ts";
import { commandLine } from "../lib/command-line.ts";
import { SignalError, VmError } from "../lib/errors.ts";
import { log, warnOnce } from "../lib/log.ts";
import { saysPortTaken } from "../lib/program-messages.ts";
import { findForward, SSH_PORT } from "../machine/parse.ts";
import type { Machine, Nic } from "../machine/types.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import { readLastLines } from "../qemu/last-lines.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { linkCommand } from "../qemu/devices/nic.ts";
import { tpmByHand } from "../qemu/devices/tpm.ts";
import type { Jail } from "../qemu/jail.ts";
import { QemuRefusal, startQemu, type QemuSession } from "../qemu/session.ts";
import { probeQemu } from "../qemu/probe.ts";
import { INCOMING_ARGS } from "../qemu/ram-state.ts";
import { buildRunScript } from "../qemu/script.ts";
import { ARCH } from "../machine/arch.ts";
import { remove } from "../store/remove.ts";
import { lstatOf } from "../lib/read-file.ts";
import { replaceVolatile } from "../store/files.ts";
import { claimFiles, refuseStrayDisks } from "../store/claim.ts";
import { RUN_FILES, WORK } from "../store/layout.ts";
import { readMark, updateRun } from "../store/mark.ts";
import type { RunRecord } from "../store/mark-types.ts";
import { isSuspended } from "../store/is-suspended.ts";
import { appendHistory } from "../store/history.ts";
import { startEvents } from "../store/events.ts";
import { describeGone, type Workdir } from "../store/workdir.ts";
import { RUN_NAMES } from "../store/working-names.ts";
import { connectCards } from "../vm/cards.ts";
import type { Context } from "../vm/context.ts";
import { freeSshForward, portChosen, requireFreeForwards } from "../vm/display.ts";
import { refuseMemoryMax, warnOfMemory } from "../vm/fit.ts";
import { GuestErrorMonitor } from "../vm/guest-errors.ts";
import { keepFormats } from "../vm/image-formats.ts";
import { planJail } from "../vm/jail.ts";
import { resolveMachine, type Cd } from "../vm/machine.ts";
import { refuseExcess } from "../vm/limits.ts";
import { Media } from "../vm/media.ts";
import { refuseTemplate } from "../vm/template.ts";
import { companionOf } from "../vm/tpm.ts";
import { checkTpmForRun } from "../vm/tpm-state.ts";
import { refuseRunning } from "../vm/in-use.ts";
import { effectiveForwards } from "../vm/nics.ts";
import { warnOfUnreadSettings } from "../vm/settings-file.ts";
import { reportVolatile } from "../vm/volatile.ts";
import { requireVm } from "../store/no-vm.ts";
import { openVm, requireWork, type Vm } from "../vm/find.ts";
import { withLockedVm, withVm } from "../vm/open.ts";
import { allocateRam, openRam, openResumedRam, ramDescriptor } from "../vm/ram.ts";
import type { Resuming } from "./resume-suspended.ts";
import type { attachRepository } from "./run-arriving.ts";
import { recordStart, withdrawStart } from "./run-start.ts";
import { waitUntilOff } from "./wait-until-off.ts";

const noSshForward = (): VmError =>
  new VmError("usage", `--wait=ssh: no port of this host is forwarded to the guest's port ${SSH_PORT}`, {
    hint: `forward a free port: ${commandLine("run", "--detach", "--ssh", "--wait=ssh")}`,
  });

/** Another VM may bind a free port between the check and qemu's start. */
const PORT_TRIES = 5;

/** Time limit for the lock after the guest has powered off, to record the exit reason. */
const RECORD_WAIT_MS = 60_000;

interface Started {
  vm: Vm;
  work: Workdir;
  machine: QemuSession;
  resolved: Machine;
}

/** Arguments of `run`. */
export interface RunRequest {
  /** CD of the command line: attached and booted once; empty: no CD, overriding the settings. */
  iso?: string | undefined;
  /** Leave qemu running in the background. */
  detach?: boolean | undefined;
  /** Forward a free port of the loopback interface to the guest's SSH port. */
  ssh?: boolean | undefined;
  /** The caller waits for the guest's SSH server: a port must be forwarded to it. */
  needsSsh?: boolean | undefined;
  /** Discard the saved state of a suspended VM, and boot. */
  boot?: boolean | undefined;
  /** The repository, mounted, that its disks are copied from (`restore --from-remote`). */
  repository?: Parameters<typeof attachRepository>[3];
  /** Shut the guest down after this time; only in the foreground. */
  limitSeconds?: number | undefined;
  /** How long to wait for the VM's lock. */
  lockWaitMs?: number | undefined;
}

/**
 * Runs the VM in the foreground until the guest is off, or starts it in the background.
 * @throws 128+N after a stop signal, 124 on the time limit, 74 if the guest did not power off
 */
export async function runVm(context: Context, request: RunRequest = {}): Promise<void> {
  const { iso, detach = false } = request;
  const start = async (found: Vm, undone: boolean): Promise<Started | string> => {
    refuseTemplate(found, "run");
    if (undone && request.boot !== true) return found.settings.GUESTNAME || basename(found.hostdir);
    // A mistyped name fails before a snapshot is restored.
    const isoPath = iso ? await new Media(context, found).findIso(iso) : iso;
    const vm = await ensureWork(context, found);
    // The restored settings may say so, if HOSTDIR had none.
    if (vm !== found) refuseTemplate(vm, "run");
    warnOfUnreadSettings(vm);
    const work = vm.work as Workdir;
    const resuming = isSuspended(work.dir)
      ? await (
          await import("./resume-suspended.ts")
        ).openSuspended(context, vm, work, { boot: request.boot === true, iso: iso !== undefined })
      : undefined;
    if (resuming) return startVm(resuming.context, resuming.vm, work, isoPath, request, resuming);
    return startVm(context, vm, work, isoPath, request);
  };
  const run = await withVm(context, "run", start, { waitMs: request.lockWaitMs });
  // The guest of an interrupted `suspend` runs on.
  if (typeof run === "string") return log.success(`${run} runs in the background`);
  const { runLateHook } = await import("../vm/hooks.ts");
  const hooked = runLateHook(context, run.vm, "on-start", { VM_PID: String(run.machine.pid) });
  if (detach) {
    await hooked;
    await run.machine.release();
    return log.success(`${run.resolved.name} runs in the background (pid ${run.machine.pid})`);
  }
  const { machine, work } = run;
  const stop = await waitUntilOff(machine, work, run.vm.settings.STOP_TIMEOUT, request.limitSeconds);
  const end = await run.machine.ended;
  await hooked;
  const { finishRun, unrecordedEnd } = await import("../vm/record-exit.ts");
  await withLockedVm(context, "finish the run", async (vm) => finishRun(context, vm, run.work, end, stop), {
    waitMs: RECORD_WAIT_MS,
  }).catch((error: unknown) => {
    throw unrecordedEnd(error, end, stop);
  });
}

/** [compat] Without working files the last snapshot is restored first. */
async function ensureWork(context: Context, vm: Vm): Promise<Vm> {
  if (vm.work.state === "present") return vm;
  requireVm(vm.hostdir);
  refuseStrayDisks(vm.hostdir, vm.work, "run");
  const { listSnapshots } = await import("../store/snapshots.ts");
  if (vm.work.state === "gone" && listSnapshots(vm.hostdir).length === 0) requireWork(vm, "run the VM");
  log.info(vm.work.state === "gone" ? describeGone(vm.work) : `the VM in ${vm.hostdir} has no working files`);
  const { restoreSnapshot } = await import("../snapshot/restore.ts");
  await restoreSnapshot(context, vm);
  return openVm(context);
}

async function chooseCd(
  vm: Vm,
  media: Media,
  firstTime: boolean,
  iso: string | undefined,
): Promise<Cd | undefined> {
  // [compat] Empty: no CD.
  if (iso === "") return undefined;
  if (iso !== undefined) return { path: iso, first: true };
  const { ISO, KEEPCD } = vm.settings;
  if (ISO === "" || !(firstTime || KEEPCD)) return undefined;
  return { path: await media.findIso(ISO), first: firstTime };
}

async function startVm(
  context: Context,
  vm: Vm,
  work: Workdir,
  iso: string | undefined,
  { ssh: typedSsh = false, detach = false, needsSsh = false, repository: held }: RunRequest,
  resuming?: Resuming,
): Promise<Started> {
  const ssh = typedSsh || resuming?.ssh === true;
  const firstTime = lstatOf(join(work.dir, WORK.firstTime)) !== undefined;
  const media = new Media(context, vm);
  const cd = resuming ? cdOf(resuming) : await chooseCd(vm, media, firstTime, iso);
  await refuseRunning(work, "run");
  claimFiles(work, vm.settings.TPM === "" ? RUN_NAMES : [...RUN_NAMES, WORK.tpm]);
  checkTpmForRun(vm, work);
  const capabilities = await probeQemu(ARCH[vm.settings.QEMUARCH].binary, context.cacheDirectory);
  if (ssh) vm.settings.FORWARDS.push(freeSshForward(vm));
  const forwards = effectiveForwards(vm.settings);
  if (needsSsh && !findForward(forwards, SSH_PORT)) throw noSshForward();
  await requireFreeForwards(forwards);
  warnOfMemory(vm);
  refuseMemoryMax("run", vm);
  if (process.getuid!() === 0) warnOnce("running as root: shares and jobs act with root's rights");
  const arriving = work.mark.arriving ? await import("./run-arriving.ts") : undefined;
  const repository = await arriving?.attachRepository(context, vm, work, held);
  await using _repository = { [Symbol.asyncDispose]: async () => repository?.end() };
  for (let attempt = 1; ; attempt++) {
    const machineOf = await resolveMachine(context, vm, work, media, cd, capabilities);
    keepFormats(vm, work, machineOf.disks);
    const resumption = resuming && (await import("./resume-suspended.ts"));
    resumption?.requireSameMachine(resuming!, machineOf, capabilities);
    using state = await resumption?.openResumed(context, work, resuming!.state);
    if (state?.shared) allocateRam(work.dir, state);
    using ram = state ? openResumedRam(machineOf, state) : openRam(machineOf, vm.settings.SHARED_RAM);
    const resolved = { ...machineOf, ram: ram.ram };
    const argv = buildQemuArgv(resolved, capabilities);
    refuseExcess("run", resolved, argv);
    try {
      const { jail, record } = await planJail(context, vm.settings, {
        machine: resolved,
        directory: work.dir,
      });
      recordStart(context, vm, work, resolved, record, { ssh, detach });
      const starting = { argv, jail, capabilities, detached: detach, ramFds: ram.fds, resuming };
      const machine = await startMachine(context, vm, work, resolved, starting);
      repository?.handOver();
      await arriving?.startCopying(machine.qmp, work);
      if (jail?.root && !record.namespaces) updateRun(work.dir, { jail: record });
      if (work.mark.run === undefined) reportVolatile(vm.hostdir, work);
      const mark = readMark(work.dir) ?? work.mark;
      const at = mark.run?.started ?? new Date().toISOString();
      const how = resuming && "resumed";
      appendHistory(context, [{ at, vm: vm.hostdir, event: "started", how }]);
      return { vm, work: { ...work, mark }, machine, resolved };
    } catch (error) {
      const logPath = join(work.dir, WORK.qemuLog);
      const { display } = resolved;
      const onPort = "at" in display && "port" in display.at;
      const portRace = onPort && saysPortTaken(readLastLines(logPath));
      removeRunFiles(work);
      if (!portRace || portChosen(vm) || attempt === PORT_TRIES) throw error;
    }
  }
}

/** The CD that the suspended machine had. */
const cdOf = ({ state: { cd } }: Resuming): Cd | undefined =>
  cd.path === null ? undefined : { path: cd.path, first: cd.first };

/** How a machine is started. */
interface Starting {
  argv: string[];
  jail: Jail | undefined;
  capabilities: Capabilities;
  detached: boolean;
  /** Files of its RAM, and of its state. */
  ramFds: number[];
  resuming: Resuming | undefined;
}

async function startMachine(
  context: Context,
  { settings }: Vm,
  work: Workdir,
  resolved: Machine,
  { argv, jail, capabilities, detached, ramFds, resuming }: Starting,
): Promise<QemuSession> {
  const script = join(work.dir, WORK.runScript);
  const byHand = resolved.tpm && tpmByHand(resolved.tpm, WORK.tpm);
  replaceVolatile(
    script,
    buildRunScript(
      byHand || resolved.ram
        ? buildQemuArgv({ ...resolved, ram: undefined, tpm: byHand?.tpm }, capabilities)
        : argv,
      work.dir,
      `Runs the VM ${resolved.name}; written by ${context.prog} ${context.version}`,
      byHand?.lines,
    ),
  );
  chmodSync(script, 0o700);
  const logPath = join(work.dir, WORK.qemuLog);
  rmSync(logPath, { force: true });
  rmSync(join(work.dir, WORK.companionLog), { force: true });
  const cards = await connectCards(context, work.dir, resolved.name, resolved.nics).catch(
    (error: unknown) => {
      withdrawStart(work);
      throw error;
    },
  );
  const downLinks = resolved.nics.filter(({ link }) => link === "down");
  const throttled = settings.DISK_LIMITS.length > 0;
  const held = downLinks.length > 0 || throttled;
  startEvents(work.dir);
  const errors = new GuestErrorMonitor(work.dir);
  let limits: RunRecord["limits"];
  const starting = startQemu({
    // A card's link and a disk's limit are set by commands only, before the guest runs.
    argv: resuming ? [...argv, ...INCOMING_ARGS] : held ? [...argv, "-S"] : argv,
    jail,
    directory: work.dir,
    monitor: join(work.dir, WORK.monitor),
    logPath,
    script,
    arch: resolved.arch,
    ...companionOf(resolved, work.dir, logPath),
    detached,
    ...(hasLimits(settings) && {
      onSpawn: async (pid) => {
        const { confineQemu } = await import("../vm/confine.ts");
        limits = await confineQemu(pid, { name: resolved.name, prog: context.prog }, settings);
      },
    }),
    furtherFds: cards.fds,
    lastFds: ramFds,
    onEvent: (event) => errors.onEvent(event),
  });
  const machine = await starting.catch(async (error: unknown) => {
    errors[Symbol.dispose]();
    await cards.withdraw();
    if (error instanceof QemuRefusal || resuming) withdrawStart(work);
    if (!resuming || !(error instanceof VmError) || error instanceof SignalError) throw error;
    throw (await import("./resume-suspended.ts")).cannotResume(error.message);
  });
  cards.handOver();
  if (limits) updateRun(work.dir, { limits });
  errors.qmp = machine.qmp;
  if (throttled) await throttle(machine, settings.DISK_LIMITS);
  if (resuming) {
    const { resumeGuest, reportResumed, requireAlive } = await import("./resume-suspended.ts");
    await resumeGuest(work, machine, ramDescriptor(resolved) + 1, downLinks, resuming.state);
    const reported = reportResumed(work, machine.qmp, resuming.state);
    if (detached) {
      await reported;
      await requireAlive(work, machine);
    }
  } else if (held) await startWithLinksDown(machine, downLinks);
  void machine.ended.then(() => errors[Symbol.dispose]());
  const { endWithGuest, showScreen } = await import("../vm/viewer.ts");
  const viewer = showScreen(context, work, resolved, !detached);
  if (viewer) endWithGuest(viewer, machine);
  return machine;
}

/** Limits the disks of a machine that waits to run. A machine that cannot be limited is ended. */
async function throttle(machine: QemuSession, limits: readonly DiskLimit[]): Promise<void> {
  const { throttleDisks } = await import("../live/throttle.ts");
  try {
    for (const number of await throttleDisks(machine.qmp, limits))
      warnOnce(`DISK_LIMITS: the machine has no disk ${number}`);
  } catch (error) {
    await machine.end();
    throw error;
  }
}

/** Unplugs cables of a machine that waits to run, and runs it. A machine that cannot be run is ended. */
async function startWithLinksDown(machine: QemuSession, nics: readonly Nic[]): Promise<void> {
  const replies = machine.qmp.executeBatch([
    ...nics.map(({ number }) => linkCommand(number, "down")),
    ["cont"],
  ]);
  const failed = (await Promise.allSettled(replies)).find((reply) => reply.status === "rejected");
  if (!failed) return;
  await machine.end();
  throw failed.reason;
}

/** Of one that did not start. The next attempt finds the disks' backing files through the link to a repository. */
function removeRunFiles(work: Workdir): void {
  for (const name of RUN_FILES) if (name !== WORK.repositoryLink) remove(join(work.dir, name));
}
