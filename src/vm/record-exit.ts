import { join } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf } from "../lib/read-file.ts";
import { formatSize } from "../lib/size.ts";
import { formatTimestamp } from "../lib/time.ts";
import { signalError, type StopSignal } from "../process/signals.ts";
import type { QemuEnd } from "../qemu/session.ts";
import { fileError } from "../store/files.ts";
import { RUN_FILES, WORK } from "../store/layout.ts";
import { isUnsettled, readMark, updateMark } from "../store/mark.ts";
import type { Mark } from "../store/mark-types.ts";
import { ownDisks } from "../store/own-disks.ts";
import { remove } from "../store/remove.ts";
import { forgetRunning } from "../store/running.ts";
import type { Workdir, Work } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { describeReason, inferEnd, isInOrder, type Ended } from "./exit-reason.ts";
import { findRunning } from "./in-use.ts";

/**
 * Records how a run ended, and removes what only a run needs. The caller holds the VM's lock.
 * @throws what says first that the run has ended, and how: the next command records it
 */
function writeEnd(context: Context, hostdir: string, workdir: string, { end, how, at }: Ended): void {
  const run = readMark(workdir)?.run;
  try {
    updateMark(workdir, { lastRun: end, run: run && { ...run, ended: at.toISOString() } });
  } catch (error) {
    throw fileError(
      `${how}, but this cannot be recorded in ${workdir}`,
      error,
      "free some room: the next command records it",
    );
  }
  for (const name of RUN_FILES) remove(join(workdir, name));
  // The installer has done its work.
  if (isInOrder(end)) remove(join(workdir, WORK.firstTime));
  forgetRunning(context.cacheDirectory, hostdir);
}

/**
 * Catches up on a run that ended while nobody looked. The caller holds the VM's lock.
 * @param correct what the caller knows better than the records of the run
 * @returns how it ended; undefined when there is nothing to catch up on, or it still goes on
 */
export async function catchUp(
  context: Context,
  hostdir: string,
  work: Work,
  correct: (ended: Ended) => Ended = (ended) => ended,
): Promise<Ended | undefined> {
  if (work.state !== "present" || !isUnsettled(work.mark) || (await findRunning(work)) !== undefined)
    return undefined;
  const ended = correct(inferEnd(work.dir, work.mark.run!));
  // What a damaged mark names may be an earlier run.
  writeEnd(context, hostdir, work.dir, work.mark.damaged ? { ...ended, end: "unknown" } : ended);
  return ended;
}

/**
 * The same, and says so. That it cannot be recorded stops no command: `destroy` makes room.
 * @returns whether the mark has changed
 */
export async function recordExit(context: Context, hostdir: string, work: Work): Promise<boolean> {
  try {
    const ended = await catchUp(context, hostdir, work);
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
  return { end: "crashed", how: `qemu ended by itself with status ${status}` };
}

/** When they were made tells working files apart; a damaged mark may not know it any more. */
const isSameVm = (now: Mark, then: Mark): boolean =>
  now.created === then.created || now.damaged === true || now.created === "" || then.created === "";

/** Records how the run ended, says so, and fails unless the guest powered itself off. */
export function finishRun(
  context: Context,
  now: { hostdir: string; work: Work },
  work: Workdir,
  machineEnd: QemuEnd,
  stop: StopSignal | undefined,
): void {
  const same = now.work.state === "present" && isSameVm(now.work.mark, work.mark);
  if (!same) throw new VmError("io", "the guest was ended, and its working files were destroyed meanwhile");
  const { end, how } = classifyEnd(machineEnd);
  try {
    writeEnd(context, now.hostdir, work.dir, { end, how, at: new Date() });
  } catch (error) {
    // What the signal's sender waits for is its status.
    if (!stop) throw error;
    log.warn(reasonOf(error));
  }
  if (stop) throw signalError(stop, `the run was ended by ${stop}: ${how}`);
  if (!isInOrder(end)) {
    const qemuLog = join(work.dir, WORK.qemuLog);
    const see = lstatOf(qemuLog)?.size ? `; see qemu's log: ${qemuLog}` : "";
    throw notPoweredOff(how, `its disks are as after a power cut${see}`);
  }
  log.success(`${how}; ${describeDisks(work.dir)}`);
}

/** Another command holds the VM's lock for too long: how the run ended is said at least. */
export function unrecordedEnd(error: unknown, machineEnd: QemuEnd, stop: StopSignal | undefined): unknown {
  if (!(error instanceof VmError && error.code === "busy")) return error;
  const message = `${classifyEnd(machineEnd).how}, but this is not recorded: ${error.message}`;
  return stop
    ? signalError(stop, message)
    : new VmError("busy", message, { hint: "the next command records it" });
}

/** A run that ended otherwise than by the guest. */
export const notPoweredOff = (how: string, hint = "its disks are as after a power cut"): VmError =>
  new VmError("io", `the guest did not power itself off: ${how}`, { hint });

/** What the VM's disks take: `its disks take 1.2 GiB in /tmp/…`. */
function describeDisks(workdir: string): string {
  const bytes = ownDisks(workdir).reduce(
    (sum, name) => sum + (lstatOf(join(workdir, name))?.blocks ?? 0) * 512,
    0,
  );
  return `its disks take ${formatSize(bytes)} in ${workdir}`;
}
