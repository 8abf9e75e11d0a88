import { beginStep } from "../lib/activity.ts";
import { interruption, throwIfInterrupted } from "../process/signals.ts";
import { watchDirectory } from "../process/watch-directory.ts";
import { readEvents, type PastEvent } from "../store/events.ts";
import type { Workdir } from "../store/workdir.ts";
import { findRunning } from "./in-use.ts";

/** Interval of checks for a killed qemu, which writes no event. */
const POLL_MS = 500;

/**
 * Waits for a condition of a run, by its log of events, so that the monitor stays free for other commands.
 * @param accept gets all events of the run so far; undefined: keep waiting
 * @returns what `accept` returned, `ended` if the run ended, `late` after the limit
 */
export async function waitForRun<T>(
  work: Workdir,
  limitMs: number,
  accept: (events: PastEvent[]) => T | undefined | Promise<T | undefined>,
): Promise<T | "ended" | "late"> {
  const deadline = Date.now() + limitMs;
  let next = Promise.withResolvers<void>();
  const onChange = (): void => next.resolve();
  using _watch = watchDirectory(work.dir, { everyMs: POLL_MS }, onChange);
  interruption.addEventListener("abort", onChange);
  try {
    for (;;) {
      next = Promise.withResolvers<void>();
      const found = await accept(readEvents(work.dir));
      if (found !== undefined) return found;
      throwIfInterrupted();
      if ((await findRunning(work)) === undefined) return "ended";
      const left = deadline - Date.now();
      if (left <= 0) return "late";
      const timer = setTimeout(onChange, left);
      await next.promise;
      clearTimeout(timer);
    }
  } finally {
    interruption.removeEventListener("abort", onChange);
  }
}

/** How long qemu may take to flush its images after SHUTDOWN. */
const FLUSH_MS = 30_000;

const hasShutDown = (events: PastEvent[]): true | undefined =>
  events.some(({ event }) => event === "SHUTDOWN") || undefined;

/** Waits until the VM is off. @returns false if it is still running after `limitMs` */
export async function waitForEnd(work: Workdir, limitMs: number): Promise<boolean> {
  using _step = beginStep(() => "waiting for the guest to shut down");
  const how = await waitForRun(work, limitMs, hasShutDown);
  if (how === "late") return false;
  // After SHUTDOWN qemu flushes its images, and exits.
  return how === "ended" || (await waitForRun(work, FLUSH_MS, () => undefined)) === "ended";
}
