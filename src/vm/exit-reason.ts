import { join } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { isQemuWarning } from "../lib/program-messages.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatTimestamp } from "../lib/time.ts";
import { signalError, type StopSignal } from "../process/signals.ts";
import { lastWords, type QemuEnd } from "../qemu/session.ts";
import { readShutdown } from "../qmp/events.ts";
import { readEvents } from "../store/events.ts";
import type { Mark, RunEnd, RunRecord } from "../store/mark-types.ts";
import { remove } from "../store/remove.ts";
import { lstatOf } from "../lib/read-file.ts";
import { fileError } from "../store/files.ts";
import { RUN_FILES, WORK } from "../store/layout.ts";
import { readMark, updateMark } from "../store/mark.ts";
import { forgetRunning } from "../store/running.ts";
import { bootTime, type Workdir, type Work } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { findRunning } from "./in-use.ts";
import { ownDisks } from "../store/own-disks.ts";

/** How a run ended. */
export interface Ended {
  end: RunEnd;
  at: Date;
  /** `the guest shut down` */
  how: string;
  /** Not recorded: qemu is gone without an event or message. */
  guessed?: true;
}

/** By qemu's reason (qapi/run-state.json, ShutdownCause). */
const ENDS: Readonly<Record<string, readonly [RunEnd, string]>> = {
  "guest-shutdown": ["powered-off", "the guest shut down"],
  "guest-reset": ["reset", "the guest rebooted, which ended the run"],
  "guest-panic": ["crashed", "the guest's kernel panicked"],
  "host-qmp-quit": ["stopped", "qemu was terminated by a command"],
  "host-signal": ["killed", "qemu was terminated by a signal"],
  "host-ui": ["killed", "qemu was closed from its window"],
};

const describeReason = (reason: string): readonly [RunEnd, string] =>
  (Object.hasOwn(ENDS, reason) ? ENDS[reason] : undefined) ?? ["killed", `qemu exited: ${reason}`];

/** For runs of which only the end is recorded. */
const HOW: Readonly<Record<RunEnd, string>> = {
  "powered-off": ENDS["guest-shutdown"]![1],
  reset: ENDS["guest-reset"]![1],
  stopped: ENDS["host-qmp-quit"]![1],
  killed: "qemu was killed",
  crashed: "qemu or the guest's kernel crashed",
  unknown: "the exit reason is unknown",
};

export const describeEnd = (end: RunEnd): string => HOW[end];

/** Did the guest end the run itself, so that its disks are consistent? */
export const endedByGuest = (end: RunEnd | undefined): boolean => end === "powered-off" || end === "reset";

/** A damaged record must not prevent a restore or destroy. */
function readOr<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** Infers how a run without a waiting process ended, from its log of events and qemu's log. */
export function inferEnd(workdir: string, run: Pick<RunRecord, "started">): Ended {
  const shutdown = readOr(() => readEvents(workdir), []).findLast((event) => readShutdown(event));
  if (shutdown) {
    const [end, how] = describeReason(readShutdown(shutdown)!.reason);
    return { end, how, at: shutdown.at };
  }
  const lastSign = lstatOf(join(workdir, WORK.eventsOut))?.mtime ?? new Date(run.started);
  const booted = bootTime();
  if (booted && booted > new Date(run.started))
    return { end: "killed", how: "the host was restarted", at: booted };
  const words = readOr(() => lastWords(join(workdir, WORK.qemuLog)), "")
    .split("\n")
    .filter((line) => !isQemuWarning(line))
    .join("\n")
    .trim();
  return words
    ? { end: "crashed", how: `qemu failed: ${words}`, at: lastSign }
    : { end: "killed", how: "qemu was killed", at: lastSign, guessed: true };
}

/** Is the end of the last run unrecorded? The run may be in progress. */
export const isExitUnrecorded = (mark: Mark): boolean =>
  mark.run !== undefined && mark.run.ended === undefined;

/**
 * Records how a run ended, and removes its temporary files. The caller holds the VM's lock.
 * @throws 73 or 74 if it cannot be recorded; the message says how the run ended. The next command records it
 */
function writeEnd(context: Context, hostdir: string, workdir: string, { end, how, at }: Ended): void {
  const run = readMark(workdir)?.run;
  try {
    updateMark(workdir, { lastRun: end, run: run && { ...run, ended: at.toISOString() } });
  } catch (error) {
    throw fileError(
      `${how}, but the exit reason cannot be recorded in ${workdir}`,
      error,
      "free some space: the next command records it",
    );
  }
  for (const name of RUN_FILES) remove(join(workdir, name));
  // The installation is complete.
  if (endedByGuest(end)) remove(join(workdir, WORK.firstTime));
  forgetRunning(context.cacheDirectory, hostdir);
}

/**
 * Records the end of a run that no process waited for. The caller holds the VM's lock.
 * @param correct replaces the inferred end by what the caller knows
 * @returns how it ended; undefined if nothing is unrecorded, or it is still running
 */
export async function recordMissedExit(
  context: Context,
  hostdir: string,
  work: Work,
  correct: (ended: Ended) => Ended = (ended) => ended,
): Promise<Ended | undefined> {
  if (work.state !== "present" || !isExitUnrecorded(work.mark) || (await findRunning(work)) !== undefined)
    return undefined;
  const ended = correct(inferEnd(work.dir, work.mark.run!));
  // A damaged mark may refer to an earlier run.
  writeEnd(context, hostdir, work.dir, work.mark.damaged ? { ...ended, end: "unknown" } : ended);
  return ended;
}

/**
 * The same, and reports it. A failure to record is only a warning: `destroy` must work on a full filesystem.
 * @returns whether the mark has changed
 */
export async function recordExit(context: Context, hostdir: string, work: Work): Promise<boolean> {
  try {
    const ended = await recordMissedExit(context, hostdir, work);
    if (ended) log.info(`the last run ended ${formatTimestamp(ended.at)}: ${ended.how}`);
    return ended !== undefined;
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    log.warn(error.message);
    return false;
  }
}

function classifyEnd({ shutdown, status, signal }: QemuEnd): Omit<Ended, "at"> {
  if (shutdown) {
    const [end, how] = describeReason(shutdown.reason);
    return { end, how };
  }
  if (signal) return { end: "killed", how: `qemu was killed by ${signal}` };
  return { end: "crashed", how: `qemu exited with status ${status}` };
}

/** Working files are identified by their creation time, which a damaged mark may lack. */
const isSameVm = (now: Mark, then: Mark): boolean =>
  now.created === then.created || now.damaged === true || now.created === "" || then.created === "";

/** Records how the run ended, reports it, and fails unless the guest shut down. */
export function finishRun(
  context: Context,
  now: { hostdir: string; work: Work },
  work: Workdir,
  machineEnd: QemuEnd,
  stop: StopSignal | undefined,
): void {
  const same = now.work.state === "present" && isSameVm(now.work.mark, work.mark);
  if (!same) throw new VmError("io", "the run has ended, but its working files were destroyed meanwhile");
  const { end, how } = classifyEnd(machineEnd);
  try {
    writeEnd(context, now.hostdir, work.dir, { end, how, at: new Date() });
  } catch (error) {
    // The exit status must report the signal.
    if (!stop) throw error;
    log.warn(reasonOf(error));
  }
  if (stop) throw signalError(stop, `the run was terminated by ${stop}: ${how}`);
  if (!endedByGuest(end)) {
    const qemuLog = join(work.dir, WORK.qemuLog);
    const see = lstatOf(qemuLog)?.size ? `; see qemu's log: ${qemuLog}` : "";
    throw notPoweredOff(how, `its disks are crash-consistent, as after a power cut${see}`);
  }
  log.success(`${how}; ${describeDisks(work.dir)}`);
}

/** If another command holds the VM's lock for too long, the error at least says how the run ended. */
export function unrecordedEnd(error: unknown, machineEnd: QemuEnd, stop: StopSignal | undefined): unknown {
  if (!(error instanceof VmError && error.code === "busy")) return error;
  const message = `${classifyEnd(machineEnd).how}, but the exit reason is not recorded: ${error.message}`;
  return stop
    ? signalError(stop, message)
    : new VmError("busy", message, { hint: "the next command records it" });
}

/** A run that was not ended by the guest. */
export const notPoweredOff = (
  how: string,
  hint = "its disks are crash-consistent, as after a power cut",
): VmError => new VmError("io", `the guest did not shut down: ${how}`, { hint });

/** `its disks occupy 1.2 GiB in /tmp/…` */
function describeDisks(workdir: string): string {
  const bytes = ownDisks(workdir).reduce(
    (sum, name) => sum + (lstatOf(join(workdir, name))?.blocks ?? 0) * 512,
    0,
  );
  return `its disks occupy ${formatSize(bytes)} in ${workdir}`;
}
