import { join } from "node:path";
import { isOfSwtpm, isQemuSignal, isQemuWarning } from "../lib/program-messages.ts";
import { lstatOf } from "../lib/read-file.ts";
import { readLastLines } from "../qemu/last-lines.ts";
import { followPanic, readShutdown } from "../qmp/events.ts";
import { readEvents } from "../store/events.ts";
import { WORK } from "../store/layout.ts";
import type { RunEnd, RunRecord } from "../store/mark-types.ts";
import { ownDisks } from "../store/own-disks.ts";
import { readSuspended } from "../store/suspended.ts";
import { bootTime } from "../store/workdir.ts";

/** How a run ended. */
export interface Ended {
  end: RunEnd;
  at: Date;
  /** `the guest shut down` */
  how: string;
  /** Not recorded: qemu is gone without an event or message. `at` is its last sign of life. */
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

/**
 * Classifies and describes a reason of qemu's.
 * @param panicked the guest's kernel had panicked: whatever ended qemu then, the guest did not shut down
 */
export const describeReason = (reason: string, panicked: boolean): readonly [RunEnd, string] =>
  panicked
    ? ENDS["guest-panic"]!
    : ((Object.hasOwn(ENDS, reason) ? ENDS[reason] : undefined) ?? ["killed", `qemu exited: ${reason}`]);

/** For runs of which only the end is recorded. */
const HOW: Readonly<Record<RunEnd, string>> = {
  "powered-off": ENDS["guest-shutdown"]![1],
  reset: ENDS["guest-reset"]![1],
  stopped: ENDS["host-qmp-quit"]![1],
  suspended: "the VM was suspended",
  killed: "qemu was killed",
  crashed: "qemu or the guest's kernel crashed",
  unknown: "the exit reason is unknown",
};

export const describeEnd = (end: RunEnd): string => HOW[end];

/** A run whose state was saved. */
export const SUSPENDED = { end: "suspended", how: HOW.suspended } as const;

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

/** When the running qemu wrote its files, in milliseconds. */
const listWrites = (workdir: string): number[] =>
  [WORK.eventsOut, WORK.consoleLog, ...readOr(() => ownDisks(workdir), [])].map(
    (name) => lstatOf(join(workdir, name))?.mtimeMs ?? 0,
  );

/** How it ended, to be shown with its time. */
export const describeEnded = ({ how, guessed }: Ended): string =>
  guessed ? `${how}, at this time or later` : how;

/** Infers how a run without a waiting process ended, from its log of events and qemu's log. */
export function inferEnd(workdir: string, run: Pick<RunRecord, "started">): Ended {
  const saved = lstatOf(join(workdir, WORK.suspended));
  // A failed resume moves the directory.
  const since = saved && readOr(() => readSuspended(workdir)?.since, undefined);
  if (saved) return { ...SUSPENDED, at: since === undefined ? saved.ctime : new Date(since) };
  const events = readOr(() => readEvents(workdir), []);
  const panicked = events.reduce(followPanic, false);
  const shutdown = events.findLast((event) => readShutdown(event));
  if (shutdown) {
    const [end, how] = describeReason(readShutdown(shutdown)!.reason, panicked);
    return { end, how, at: shutdown.at };
  }
  const started = new Date(run.started);
  // The kernel's clock for files is some milliseconds late.
  const signs = [started.getTime(), events.at(-1)?.at.getTime() ?? 0, ...listWrites(workdir)];
  const lastSign = new Date(Math.max(...signs));
  const booted = bootTime();
  if (booted && booted > started) return { end: "killed", how: "the host was restarted", at: booted };
  const words = readOr(() => readLastLines(join(workdir, WORK.qemuLog)), "")
    .split("\n")
    .filter((line) => !isQemuWarning(line) && !isOfSwtpm(line))
    .join("\n")
    .trim();
  if (panicked) {
    const [end, how] = describeReason("", true);
    return { end, how, at: lastSign };
  }
  if (isQemuSignal(words)) {
    const [end, how] = describeReason("host-signal", false);
    return { end, how, at: lastSign };
  }
  return words
    ? { end: "crashed", how: `qemu failed: ${words}`, at: lastSign }
    : { end: "killed", how: "qemu was killed", at: lastSign, guessed: true };
}
