import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { reasonOf, SignalError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { QmpClient } from "../qmp/client.ts";
import { WORK } from "../store/layout.ts";
import type { RunEnd } from "../store/mark-types.ts";
import { updateMark } from "../store/mark.ts";
import { discardSuspended } from "../store/suspended.ts";
import { isSuspended } from "../store/is-suspended.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import { killMachine, PANICKED } from "../vm/kill-machine.ts";
import { findGuestErrors, hasPanicked } from "../vm/guest-errors.ts";
import { findRunning } from "../vm/in-use.ts";
import { withLive } from "../vm/running.ts";
import { optionsAgain } from "../vm/running-settings.ts";
import { requireVm } from "../store/no-vm.ts";
import { findHostdir, openVm } from "../vm/find.ts";
import { withLockedVm } from "../vm/open.ts";
import { requireOwn } from "../vm/ownership.ts";
import { REQUEST_INTERVAL_MS, requestPowerOff } from "./power-off.ts";
import { describeEnd, describeReason, inferEnd, endedByGuest, type Ended } from "../vm/exit-reason.ts";
import { recordMissedExit, notPoweredOff } from "../vm/record-exit.ts";
import { runVm } from "./run.ts";
import { waitForEnd } from "../vm/watch.ts";

export interface StopRequest {
  /** Absent: STOP_TIMEOUT. */
  timeoutSeconds?: number | undefined;
  /** Kill qemu at once, as a power cut would. */
  force: boolean;
}

/** @throws 64 if `timeout` is not a whole number */
export function parseStop(timeout: string | undefined, force: boolean | undefined): StopRequest {
  if (timeout !== undefined && !/^\d{1,6}$/.test(timeout))
    throw new VmError("usage", `--timeout: '${timeout}' is not allowed`, {
      hint: "allowed: a whole number of seconds",
    });
  return { timeoutSeconds: timeout === undefined ? undefined : Number(timeout), force: force === true };
}

/** Why a guest was killed, for the record. */
const WHY = {
  forced: () => "--force",
  late: (seconds: number) => `it did not power off within ${seconds} s`,
} as const;

/**
 * Shuts the guest down, and kills qemu if the guest does not power off in time, or at once with `force` or if its kernel
 * has panicked.
 * @param restarts a panicked guest is no error: it is started again
 * @throws 124 if qemu was killed, 74 if the run ended without the guest powering off
 */
export async function stopVm(
  context: Context,
  { timeoutSeconds: asked, force }: StopRequest,
  restarts = false,
): Promise<void> {
  requireOwn(context, findHostdir(context), "stop");
  requireVm(findHostdir(context));
  const { hostdir, settings, work } = await openVm(context);
  const timeoutSeconds = asked ?? settings.STOP_TIMEOUT;
  if (work.state !== "present" || (await findRunning(work)) === undefined) {
    // Fails if this command is the first to record that the guest did not power off: the caller may copy the disks
    // next. `force` does not require it to.
    const { fresh, end, how } = await recordEnd(context);
    if (work.state === "present" && isSuspended(work.dir)) return stopSuspended(context, force);
    if (fresh && !endedByGuest(end) && !force) throw notPoweredOff(how);
    return log.info(`the VM in ${hostdir} is not running${fresh ? `: ${how}` : ""}`);
  }
  for (const { text } of findGuestErrors(work.dir)) log.warn(text);
  const state = force ? "forced" : await shutDown(work, timeoutSeconds * 1000);
  if (state !== "off") await killMachine(work, state === "panicked" ? PANICKED : undefined);
  const panicked = state === "panicked" || hasPanicked(work);
  const { endsWithoutEvent }: ArchFacts = ARCH[settings.QEMUARCH];
  const { end, how } = await recordEnd(context, work, (inferred) => {
    if (endedByGuest(inferred.end)) return inferred;
    if (panicked) {
      const [reason, words] = describeReason("", true);
      return { ...inferred, end: reason, how: words };
    }
    if (state !== "off") {
      const at = inferred.guessed ? new Date() : inferred.at;
      return { end: "stopped", at, how: `guest killed: ${WHY[state](timeoutSeconds)}` };
    }
    return inferred.guessed && endsWithoutEvent
      ? { ...inferred, end: "powered-off", how: describeEnd("powered-off") }
      : inferred;
  });
  if (endedByGuest(end)) return log.success(how);
  if (force || (panicked && restarts)) return log.success("guest killed; its disks are crash-consistent");
  if (state === "off" || panicked) throw notPoweredOff(how);
  throw new VmError("timeout", `the guest did not power off within ${timeoutSeconds} seconds`, {
    hint: "raise --timeout; the guest was killed, and its disks are crash-consistent",
  });
}

/** Only `force`, which cuts the power, discards the guest's RAM. */
async function stopSuspended(context: Context, force: boolean): Promise<void> {
  if (!force)
    return log.info(
      `the VM is suspended: its guest is stopped, and its RAM kept; resume: ${commandLine("run")}; discard the RAM, as a power cut would: ${commandLine("stop", "--force")}`,
    );
  await withLockedVm(context, "stop", async ({ work }) => {
    if (work.state !== "present" || !isSuspended(work.dir)) return;
    discardSuspended(work.dir);
    const how = "the saved state was discarded: --force";
    updateMark(work.dir, { lastRun: "stopped", run: work.mark.run && { ...work.mark.run, how } });
    log.success("discarded the RAM of the suspended VM; its disks are crash-consistent");
  });
}

/** Requests the guest to power off until it is off, its kernel panics, or the limit is reached. */
async function shutDown(work: Workdir, limitMs: number): Promise<"off" | "panicked" | "late"> {
  const deadline = Date.now() + limitMs;
  let asked = false;
  try {
    for (let again = false; ; again = true) {
      if (hasPanicked(work)) return "panicked";
      const next = Math.min(deadline, Date.now() + REQUEST_INTERVAL_MS);
      const state = await tryPowerOff(work, again, Math.max(next - Date.now(), MIN_REQUEST_MS));
      if (state === "panicked") return state;
      asked ||= state === "asked";
      if (await waitForEnd(work, Math.max(0, next - Date.now()))) return "off";
      if (Date.now() >= deadline) return "late";
    }
  } catch (error) {
    if (error instanceof SignalError)
      log.warn(
        asked
          ? "the guest was requested to power off, and may still do so; it is not killed"
          : "the guest may not have been requested to power off; it is not killed",
      );
    throw error;
  }
}

/** Also for `--timeout=0`. */
const MIN_REQUEST_MS = 500;

/** One request. Errors are warnings: after the time limit qemu is killed. */
async function tryPowerOff(
  work: Workdir,
  again: boolean,
  limitMs: number,
): Promise<"panicked" | "asked" | undefined> {
  let qmp: QmpClient | undefined;
  try {
    qmp = await QmpClient.connect(join(work.dir, WORK.qmp), limitMs, limitMs);
    return (await requestPowerOff(qmp, work.dir, again)) ?? "asked";
  } catch (error) {
    throwIfInterrupted();
    if (!again && (await findRunning(work)) !== undefined)
      log.warn(`cannot request the guest to power off: ${reasonOf(error)}`);
    return undefined;
  } finally {
    qmp?.close();
  }
}

/** Recorded exit reason of a run. */
interface RecordedEnd {
  end: RunEnd | undefined;
  how: string;
  /** Recorded by this command. */
  fresh: boolean;
}

/**
 * Records the exit reason, unless the command that waited for qemu has.
 * @param stopped working files whose qemu was just stopped: if recording fails, the exit reason is returned nevertheless
 */
async function recordEnd(
  context: Context,
  stopped?: Workdir,
  correct?: (inferred: Ended) => Ended,
): Promise<RecordedEnd> {
  let inferred: Ended | undefined;
  const note = (ended: Ended): Ended => (inferred = correct?.(ended) ?? ended);
  try {
    return await withLockedVm(
      context,
      stopped ? "record the exit reason" : "stop",
      async ({ hostdir, work }) => {
        const fresh = await recordMissedExit(context, hostdir, work, note);
        if (fresh) return { ...fresh, fresh: true };
        const end = work.state === "present" ? work.mark.lastRun : undefined;
        const words = work.state === "present" ? work.mark.run?.how : undefined;
        return { end, how: words ?? describeEnd(end ?? "unknown"), fresh: false };
      },
      { lenient: true },
    );
  } catch (error) {
    if (stopped === undefined || error instanceof SignalError) throw error;
    const run = stopped.mark.run;
    const { end, how } = inferred ?? note(inferEnd(stopped.dir, run ?? { started: stopped.mark.created }));
    log.warn(reasonOf(error));
    return { end, how, fresh: true };
  }
}

/** Stops the VM and starts it in the background, with the options of the last run. */
export async function restartVm(context: Context, request: StopRequest): Promise<void> {
  const { work } = await openVm(context);
  const typed = work.state === "present" ? work.mark.run?.typed : undefined;
  // A VM that is off is started whatever its exit reason.
  if (work.state === "present" && (await findRunning(work)) !== undefined)
    await stopVm(context, request, true).catch((error: unknown) => {
      throw notStartedAgain(error);
    });
  if (typed) Object.assign(context.options, optionsAgain(typed, context.options));
  const { startByUnit } = await import("./autostart/delegate.ts");
  if (!(await startByUnit(context, { ssh: typed?.ssh })))
    await runVm(context, { detach: true, ssh: typed?.ssh });
}

/** Adds to an error of `restart` that the VM was not started again. */
function notStartedAgain(error: unknown): unknown {
  if (!(error instanceof VmError) || error instanceof SignalError) return error;
  const hint = [error.hint, `start the VM again: ${commandLine("restart")}`];
  return new VmError(error.code, error.message, { hint: hint.filter(Boolean).join("\n"), cause: error });
}

/** Pauses or resumes the guest. @throws 73 if it is paused again at once for lack of space */
export async function setPaused(context: Context, paused: boolean): Promise<void> {
  await withLive(context, paused ? "pause" : "resume", async ({ qmp, vm, work }) => {
    if (!paused && work.mark.arriving)
      await (await import("./run-arriving.ts")).serveAgain(context, vm, work, qmp);
    await qmp.execute(paused ? "stop" : "cont");
    // If there is still no space for its disks, the guest is paused again as soon as it retries the write.
    if (!paused && findGuestErrors(work.dir).some(({ kind }) => kind === "no-space"))
      await Bun.sleep(RETRIED_MS);
    const { status } = await qmp.execute("query-status");
    if ((status === "running") !== paused) return;
    const noSpace = findGuestErrors(work.dir).find(({ kind }) => kind === "no-space");
    if (!paused && noSpace)
      throw new VmError("cannotCreate", `cannot resume: ${noSpace.text}`, {
        hint: `free some space, then run: ${commandLine("resume")}`,
      });
    throw new VmError("io", `cannot ${paused ? "pause" : "resume"} the guest: its state is ${status}`);
  });
  log.success(paused ? "guest paused" : "guest resumed");
}

const RETRIED_MS = 500;
