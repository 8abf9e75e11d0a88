import { join } from "node:path";
import { isQemuWarning } from "../lib/program-messages.ts";
import { lstatOf } from "../lib/read-file.ts";
import { readLastLines } from "../qemu/last-lines.ts";
import { readShutdown } from "../qmp/events.ts";
import { readEvents } from "../store/events.ts";
import { WORK } from "../store/layout.ts";
import type { RunEnd, RunRecord } from "../store/mark-types.ts";
import { bootTime } from "../store/workdir.ts";

/** What became of a run. */
export interface Ended {
  end: RunEnd;
  at: Date;
  /** For people: `the guest powered itself off`. */
  how: string;
  /** No record of the run tells it: qemu is gone without a word. */
  guessed?: true;
}

/** What qemu's reasons mean (qapi/run-state.json, ShutdownCause). */
const ENDS: Readonly<Record<string, readonly [RunEnd, string]>> = {
  "guest-shutdown": ["powered-off", "the guest powered itself off"],
  "guest-reset": ["reset", "the guest restarted, which ended the run"],
  "guest-panic": ["crashed", "the guest's kernel has panicked"],
  "host-qmp-quit": ["stopped", "qemu was ended by a command"],
  "host-signal": ["killed", "qemu was ended by a signal"],
  "host-ui": ["killed", "qemu was ended from its window"],
};

/** What a reason of qemu's is for us. */
export const describeReason = (reason: string): readonly [RunEnd, string] =>
  (Object.hasOwn(ENDS, reason) ? ENDS[reason] : undefined) ?? ["killed", `qemu ended because of ${reason}`];

/** How a run ended of which only the end is on record. */
const HOW: Readonly<Record<RunEnd, string>> = {
  "powered-off": ENDS["guest-shutdown"]![1],
  reset: ENDS["guest-reset"]![1],
  stopped: ENDS["host-qmp-quit"]![1],
  killed: "qemu was killed",
  crashed: "qemu or the guest's kernel crashed",
  unknown: "how it ended is not known",
};

export const describeEnd = (end: RunEnd): string => HOW[end];

/** Did the guest end the run in order, so that its disks are consistent? */
export const isInOrder = (end: RunEnd | undefined): boolean => end === "powered-off" || end === "reset";

/** A record that cannot be read must not keep the VM from being restored or destroyed. */
function readOr<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** Nobody waited for this qemu: what is left of it tells how it ended. */
export function inferEnd(workdir: string, run: Pick<RunRecord, "started">): Ended {
  const shutdown = readOr(() => readEvents(workdir), []).findLast((event) => readShutdown(event));
  if (shutdown) {
    const [end, how] = describeReason(readShutdown(shutdown)!.reason);
    return { end, how, at: shutdown.at };
  }
  const lastSign = lstatOf(join(workdir, WORK.eventsOut))?.mtime ?? new Date(run.started);
  const booted = bootTime();
  if (booted && booted > new Date(run.started))
    return { end: "killed", how: "this machine was restarted", at: booted };
  const words = readOr(() => readLastLines(join(workdir, WORK.qemuLog)), "")
    .split("\n")
    .filter((line) => !isQemuWarning(line))
    .join("\n")
    .trim();
  return words
    ? { end: "crashed", how: `qemu failed: ${words}`, at: lastSign }
    : { end: "killed", how: "qemu was killed", at: lastSign, guessed: true };
}
