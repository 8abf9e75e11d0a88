import { join } from "node:path";
import { lstatOf } from "../lib/read-file.ts";
import { log } from "../lib/log.ts";
import { cancelSaving } from "../qemu/ram-state.ts";
import { QmpClient } from "../qmp/client.ts";
import { readEvents } from "../store/events.ts";
import { SUSPENDING, WORK } from "../store/layout.ts";
import { remove } from "../store/remove.ts";
import { acceptDisks, endResuming, isUndecided, putBack } from "../store/suspended.ts";
import { isSuspended } from "../store/is-suspended.ts";
import { bootTime, type Workdir } from "../store/workdir.ts";
import { findQemus, findRunning, isStarting } from "./in-use.ts";
import { killMachine, sendSignal } from "./kill-machine.ts";

/** In SUSPENDING: the guest ran before it was paused to be suspended. */
export const WAS_RUNNING = "running";

const ANSWER_MS = 3000;
/** readEvents reads no more. */
const MAX_EVENTS_BYTES = 1 << 20;

/**
 * Completes or undoes what a killed command left. The caller holds the VM's lock. The guest runs on, or the VM is suspended as
 * before: a state whose guest has been resumed is never used again.
 * @returns whether a guest that was paused to be suspended was resumed
 */
export async function recoverSuspended(work: Workdir): Promise<boolean> {
  const undone = await undoSuspend(work);
  await settleState(work);
  return undone;
}

async function undoSuspend(work: Workdir): Promise<boolean> {
  const begun = join(work.dir, SUSPENDING);
  if (!lstatOf(begun)) return false;
  const wasRunning = lstatOf(join(begun, WAS_RUNNING)) !== undefined;
  const undone =
    (await findRunning(work)) !== undefined &&
    (await askMonitor(work, async (qmp) => {
      await cancelSaving(qmp);
      if (wasRunning) await qmp.execute("cont");
      return wasRunning;
    })) === true;
  if (undone) log.info("an interrupted 'suspend' was undone: guest resumed");
  remove(begun);
  return undone;
}

async function settleState(work: Workdir): Promise<void> {
  const { dir } = work;
  const running = (await findRunning(work)) !== undefined;
  if (isUndecided(dir)) {
    // `run` was killed after it had loaded the state, and before it resumed the guest.
    if (running && !hasResumed(work)) await killMachine(work, "ending a machine whose start was interrupted");
    if (!settleResumed(work)) return;
  }
  if (!running) remove(join(dir, WORK.resumed));
  if (!isSuspended(dir)) return;
  if (!running) {
    await endWaiting(work);
    return acceptDisks(dir);
  }
  // A guest that was started by hand is left alone.
  const status = await askMonitor(work, (qmp) => qmp.execute("query-status"));
  if (status?.status === "postmigrate" || !hasResumed(work))
    await killMachine(work, "ending the machine of a suspended VM, which an interrupted command has left");
}

const END_MS = 5000;
const POLL_MS = 10;

/**
 * Ends a qemu that a killed `run` has just started: it has no sockets yet, and until its guest runs no locks on the images. It
 * would take the sockets of the next one.
 */
async function endWaiting(work: Workdir): Promise<void> {
  for (const deadline = Date.now() + END_MS; Date.now() < deadline; await Bun.sleep(POLL_MS)) {
    const found = findQemus(work);
    if (found.length === 0 && !isStarting(work)) return;
    for (const qemu of found) sendSignal(qemu, "SIGKILL");
  }
}

/** Puts a state back whose guest has not been resumed. @returns whether it has */
export function settleResumed(work: Workdir): boolean {
  if (!isUndecided(work.dir)) return !isSuspended(work.dir);
  const resumed = hasResumed(work);
  if (resumed) endResuming(work.dir);
  else putBack(work.dir);
  return resumed;
}

/** Has the guest run since qemu was started? qemu writes the event before (system/cpus.c, vm_prepare_start). */
function hasResumed({ dir }: Workdir): boolean {
  const events = lstatOf(join(dir, WORK.eventsOut));
  // Of a crashed host, the log may be lost, and the disks may not.
  const saved = lstatOf(join(dir, WORK.resumed));
  const booted = bootTime();
  if (saved && booted && booted > saved.ctime) return true;
  return (
    (events !== undefined && events.size > MAX_EVENTS_BYTES) ||
    readEvents(dir).some(({ event }) => event === "RESUME")
  );
}

async function askMonitor<T>({ dir }: Workdir, use: (qmp: QmpClient) => Promise<T>): Promise<T | undefined> {
  try {
    const qmp = await QmpClient.connect(join(dir, WORK.qmp), ANSWER_MS, ANSWER_MS);
    try {
      return await use(qmp);
    } finally {
      qmp.close();
    }
  } catch {
    return undefined;
  }
}
