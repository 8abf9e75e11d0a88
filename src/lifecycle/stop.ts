import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { reasonOf, SignalError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { QmpClient } from "../qmp/client.ts";
import { WORK } from "../store/layout.ts";
import type { RunEnd } from "../store/mark-types.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import { endMachine } from "./end-machine.ts";
import { findGuestErrors } from "../vm/guest-errors.ts";
import { findRunning } from "../vm/in-use.ts";
import { withLive } from "../vm/running.ts";
import { requireVm } from "../store/no-vm.ts";
import { findHostdir, openVm } from "../vm/find.ts";
import { withLockedVm } from "../vm/open.ts";
import { requireOwn } from "../vm/ownership.ts";
import { ASK_AGAIN_MS, requestPowerOff } from "./power-off.ts";
import { describeEnd, inferEnd, endedByGuest, type Ended } from "../vm/exit-reason.ts";
import { recordMissedExit, notPoweredOff } from "../vm/record-exit.ts";
import { runVm } from "./run.ts";
import { waitForEnd } from "../vm/watch.ts";

export interface StopRequest {
  timeoutSeconds: number;
  /** End qemu at once, as a power cut would. */
  force: boolean;
}

/** @throws 64 when the time is none */
export function parseStop(timeout: string | undefined, force: boolean | undefined): StopRequest {
  if (timeout !== undefined && !/^\d{1,6}$/.test(timeout))
    throw new VmError("usage", `--timeout: '${timeout}' is not understood`, {
      hint: "allowed: a whole number of seconds",
    });
  return { timeoutSeconds: Number(timeout ?? STOP_SECONDS), force: force === true };
}

const STOP_SECONDS = 60;

/**
 * Shuts the guest down, and ends qemu when the guest does not power off in time, or at once with `force`.
 * @throws 124 when qemu had to be ended, 74 when the run ended otherwise than by the guest powering off
 */
export async function stopVm(context: Context, { timeoutSeconds, force }: StopRequest): Promise<void> {
  requireOwn(context, findHostdir(context), "stop");
  requireVm(findHostdir(context));
  const { hostdir, settings, work } = await openVm(context);
  if (work.state !== "present" || (await findRunning(work)) === undefined) {
    // A run that ended otherwise than asked for, with no command to say so: no success for a command that copies its
    // disks next. With `force` the end asked for is a power cut.
    const { fresh, end, how } = await recordEnd(context);
    if (fresh && !endedByGuest(end) && !force) throw notPoweredOff(how);
    return log.info(`the VM in ${hostdir} is not running${fresh ? `: ${how}` : ""}`);
  }
  for (const { text } of findGuestErrors(work.dir)) log.warn(text);
  const off = !force && (await shutDown(work, timeoutSeconds * 1000));
  if (!off) await endMachine(work);
  const { endsWithoutEvent }: ArchFacts = ARCH[settings.QEMUARCH];
  const { end, how } = await recordEnd(context, work, (inferred) => {
    if (endedByGuest(inferred.end)) return inferred;
    if (!off) return { ...inferred, end: "stopped", how: describeEnd("stopped") };
    return inferred.guessed && endsWithoutEvent
      ? { ...inferred, end: "powered-off", how: describeEnd("powered-off") }
      : inferred;
  });
  if (endedByGuest(end)) return log.success(how);
  if (force) return log.success("the guest was ended, as by a power cut");
  if (off) throw notPoweredOff(how);
  throw new VmError("timeout", `the guest did not power itself off within ${timeoutSeconds} seconds`, {
    hint: "it was ended; its disks are as after a power cut",
  });
}

/** Asks until the guest is off. @returns false when it is not within `limitMs` */
async function shutDown(work: Workdir, limitMs: number): Promise<boolean> {
  const deadline = Date.now() + limitMs;
  for (let again = false; ; again = true) {
    const next = Math.min(deadline, Date.now() + ASK_AGAIN_MS);
    await askToPowerOff(work, again, Math.max(next - Date.now(), LEAST_ASK_MS));
    if (await waitForEnd(work, Math.max(0, next - Date.now()))) return true;
    if (Date.now() >= deadline) return false;
  }
}

/** With `--timeout=0` it is asked all the same. */
const LEAST_ASK_MS = 500;

/** One request. A qemu that does not answer is no reason to give up: it is ended when the time is over. */
async function askToPowerOff(work: Workdir, again: boolean, limitMs: number): Promise<void> {
  let qmp: QmpClient | undefined;
  try {
    qmp = await QmpClient.connect(join(work.dir, WORK.qmp), limitMs, limitMs);
    await requestPowerOff(qmp, work.dir, again);
  } catch (error) {
    throwIfInterrupted();
    if (!again && (await findRunning(work)) !== undefined)
      log.warn(`cannot ask the guest to power off: ${reasonOf(error)}`);
  } finally {
    qmp?.close();
  }
}

/** How a run ended, as is on record now. */
interface RecordedEnd {
  end: RunEnd | undefined;
  how: string;
  /** This command has recorded it. */
  fresh: boolean;
}

/**
 * Records how the run ended, unless the command that waited for it has.
 * @param stopped the working files whose qemu was just stopped: that it cannot be recorded does not change how it ended
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
      "record how the run ended",
      async ({ hostdir, work }) => {
        const fresh = await recordMissedExit(context, hostdir, work, note);
        if (fresh) return { ...fresh, fresh: true };
        const end = work.state === "present" ? work.mark.lastRun : undefined;
        return { end, how: describeEnd(end ?? "unknown"), fresh: false };
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

/** Stops it and starts it in the background, with what was typed for the run before. */
export async function restartVm(context: Context, request: StopRequest): Promise<void> {
  const { work } = await openVm(context);
  const typed = work.state === "present" ? work.mark.run?.typed : undefined;
  // One that has ended otherwise is started all the same.
  if (work.state === "present" && (await findRunning(work)) !== undefined)
    await stopVm(context, request).catch((error: unknown) => {
      throw notStartedAgain(error);
    });
  if (typed) {
    const { options } = context;
    options.settings = { ...typed.settings, ...options.settings };
    const lists = ["FORWARDS", "SHARES", ...(options.imagesCleared ? [] : ["IMAGES" as const])] as const;
    for (const name of lists)
      options.additions[name] = [...(typed.additions[name] ?? []), ...(options.additions[name] ?? [])];
  }
  await runVm(context, { detach: true, ssh: typed?.ssh });
}

/** The run that `restart` stopped did not end in order, and another one was not begun. */
function notStartedAgain(error: unknown): unknown {
  if (!(error instanceof VmError) || error instanceof SignalError) return error;
  const hint = [error.hint, `it was not started again: ${commandLine("restart")}`];
  return new VmError(error.code, error.message, { hint: hint.filter(Boolean).join("\n"), cause: error });
}

/** Pauses the guest, or resumes it. @throws 73 when it is paused again at once for want of room */
export async function setPaused(context: Context, paused: boolean): Promise<void> {
  await withLive(context, paused ? "pause" : "resume", async ({ qmp, work }) => {
    await qmp.execute(paused ? "stop" : "cont");
    // A guest that still has no room for its disks is paused when it writes again, which it does at once.
    if (!paused && findGuestErrors(work.dir).some(({ kind }) => kind === "no-space"))
      await Bun.sleep(AGAIN_MS);
    const { status } = await qmp.execute("query-status");
    if ((status === "running") !== paused) return;
    const noSpace = findGuestErrors(work.dir).find(({ kind }) => kind === "no-space");
    if (!paused && noSpace)
      throw new VmError("cannotCreate", `cannot resume: ${noSpace.text}`, {
        hint: `free some room: ${context.prog} resume`,
      });
    throw new VmError("io", `cannot ${paused ? "pause" : "resume"} the guest: its state is ${status}`);
  });
  log.success(paused ? "guest paused" : "guest resumed");
}

const AGAIN_MS = 500;
