import { join } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf } from "../lib/read-file.ts";
import { formatSize } from "../lib/size.ts";
import { formatTimestamp } from "../lib/time.ts";
import { signalError, type StopSignal } from "../process/signals.ts";
import { FIRST_UID } from "../qemu/jail.ts";
import type { QemuEnd } from "../qemu/session.ts";
import { takeSharedFiles } from "../rescue/mapped-files.ts";
import { fileError } from "../store/files.ts";
import { appendHistory } from "../store/history.ts";
import { RUN_FILES, WORK } from "../store/layout.ts";
import { isExitUnrecorded, readMark, updateMark } from "../store/mark.ts";
import type { Mark } from "../store/mark-types.ts";
import { ownDisks } from "../store/own-disks.ts";
import { remove } from "../store/remove.ts";
import { isSuspended } from "../store/is-suspended.ts";
import { forgetRunning } from "../store/running.ts";
import type { Workdir, Work } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { noteEnd } from "./ended.ts";
import {
  describeEnded,
  describeReason,
  inferEnd,
  endedByGuest,
  SUSPENDED,
  type Ended,
} from "./exit-reason.ts";
import { findRunning } from "./in-use.ts";
import { listRunEvents } from "./run-events.ts";

/** Of the recorded exit reason: qemu's last lines may be part of it. */
const MAX_WORDS = 1000;

/**
 * Records how a run ended, and removes its temporary files. The caller holds the VM's lock.
 * @throws 73 or 74 if it cannot be recorded; the message says how the run ended. The next command records it
 */
function writeEnd(context: Context, hostdir: string, workdir: string, ended: Ended): void {
  const { end, at } = ended;
  const how = describeEnded(ended);
  const run = readMark(workdir)?.run;
  try {
    const words = endedByGuest(end) ? {} : { how: how.slice(0, MAX_WORDS) };
    updateMark(workdir, { lastRun: end, run: run && { ...run, ended: at.toISOString(), ...words } });
  } catch (error) {
    throw fileError(
      `${how}, but the exit reason cannot be recorded in ${workdir}`,
      error,
      "free some space: the next command records it",
    );
  }
  appendHistory(context, [
    ...listRunEvents(hostdir, workdir),
    { at: at.toISOString(), vm: hostdir, event: "ended", how: how.slice(0, MAX_WORDS), end },
  ]);
  for (const name of [...RUN_FILES, WORK.resumed]) remove(join(workdir, name));
  noteEnd(hostdir, { end, how, at });
  // The installation is complete.
  if (endedByGuest(end)) remove(join(workdir, WORK.firstTime));
  forgetRunning(context.cacheDirectory, hostdir);
  if ((run?.jail?.uid ?? 0) >= FIRST_UID) takeSharedFiles(join(workdir, WORK.out));
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
    if (ended) log.info(`the last run ended ${formatTimestamp(ended.at)}: ${describeEnded(ended)}`);
    return ended !== undefined;
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    log.warn(error.message);
    return false;
  }
}

function classifyEnd({ shutdown, panicked, status, signal }: QemuEnd): Omit<Ended, "at"> {
  if (shutdown || panicked) {
    const [end, how] = describeReason(shutdown?.reason ?? "", panicked);
    return { end, how };
  }
  if (signal) return { end: "killed", how: `qemu was killed by ${signal}` };
  return { end: "crashed", how: `qemu exited with status ${status}` };
}

/** Working files are identified by their creation time, which a damaged mark may lack. */
const isSameVm = (now: Mark, then: Mark): boolean =>
  now.created === then.created || now.damaged === true || now.created === "" || then.created === "";

const CRASH_CONSISTENT = "its disks are crash-consistent, as after a power cut";

/** Why this program ended a run: a signal that it received, or the time limit of the run. */
export type StopCause = ({ signal: StopSignal } | { limitSeconds: number }) & {
  /** Why qemu was killed; absent if it was not. */
  killed?: string;
};

/** How a run ended, by qemu's end and by what this program did. */
function describeRunEnd(machineEnd: QemuEnd, stop: StopCause | undefined): Omit<Ended, "at"> {
  const { end, how } = classifyEnd(machineEnd);
  const isKill = end === "stopped" || end === "killed";
  return { end, how: isKill && stop?.killed !== undefined ? `guest killed: ${stop.killed}` : how };
}

/** @param how how the run ended then */
function endedRunError(cause: StopCause, how: string, hint?: string): VmError {
  if ("signal" in cause)
    return signalError(cause.signal, `the run was terminated by ${cause.signal}: ${how}`);
  return new VmError("timeout", `the run was ended after ${cause.limitSeconds} seconds: ${how}`, {
    hint: hint ?? "raise the limit: --timeout",
  });
}

/** Records how the run ended, reports it, and fails unless the guest shut down. */
export function finishRun(
  context: Context,
  now: { hostdir: string; work: Work },
  work: Workdir,
  machineEnd: QemuEnd,
  stop: StopCause | undefined,
): void {
  const same = now.work.state === "present" && isSameVm(now.work.mark, work.mark);
  if (!same) throw new VmError("io", "the run has ended, but its working files were destroyed meanwhile");
  const { mark } = now.work as Workdir;
  // It has been suspended, and resumed by another command before this one had the lock.
  if (mark.run?.started !== work.mark.run?.started) return log.success("the VM has been started again");
  if (isSuspended(work.dir) || mark.lastRun === "suspended") {
    if (isExitUnrecorded(mark)) writeEnd(context, now.hostdir, work.dir, { ...SUSPENDED, at: new Date() });
    return log.success(SUSPENDED.how);
  }
  const { end, how } = describeRunEnd(machineEnd, stop);
  const recorded = stop && "limitSeconds" in stop ? `time limit of ${stop.limitSeconds} s: ${how}` : how;
  try {
    writeEnd(context, now.hostdir, work.dir, { end, how: recorded, at: new Date() });
  } catch (error) {
    // The exit status must report the signal.
    if (!stop) throw error;
    log.warn(reasonOf(error));
  }
  if (stop) throw endedRunError(stop, how, endedByGuest(end) ? undefined : CRASH_CONSISTENT);
  if (!endedByGuest(end)) {
    const qemuLog = join(work.dir, WORK.qemuLog);
    const see = lstatOf(qemuLog)?.size ? `; see qemu's log: ${qemuLog}` : "";
    throw notPoweredOff(how, `${CRASH_CONSISTENT}${see}`);
  }
  log.success(`${how}; ${describeDisks(work.dir)}`);
}

/**
 * How a run ended of which nothing is recorded.
 * @throws as `finishRun` unless the guest shut down
 */
export function requireGuestEnd(machineEnd: QemuEnd, stop: StopCause | undefined): string {
  const { end, how } = describeRunEnd(machineEnd, stop);
  if (stop) throw endedRunError(stop, how);
  if (!endedByGuest(end)) throw notPoweredOff(how, "nothing of this run is kept");
  return how;
}

/** If another command holds the VM's lock for too long, the error at least says how the run ended. */
export function unrecordedEnd(error: unknown, machineEnd: QemuEnd, stop: StopCause | undefined): unknown {
  if (!(error instanceof VmError && error.code === "busy")) return error;
  const message = `${describeRunEnd(machineEnd, stop).how}, but the exit reason is not recorded: ${error.message}`;
  return stop && "signal" in stop
    ? signalError(stop.signal, message)
    : new VmError("busy", message, { hint: "the next command records it" });
}

/** A run that was not ended by the guest. */
export const notPoweredOff = (how: string, hint = CRASH_CONSISTENT): VmError =>
  new VmError("io", `the guest did not shut down: ${how}`, { hint });

/** `its disks occupy 1.2 GiB in /tmp/…` */
function describeDisks(workdir: string): string {
  const bytes = ownDisks(workdir).reduce(
    (sum, name) => sum + (lstatOf(join(workdir, name))?.blocks ?? 0) * 512,
    0,
  );
  return `its disks occupy ${formatSize(bytes)} in ${workdir}`;
}
