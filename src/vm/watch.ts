import { beginStep } from "../lib/activity.ts";
import { interruption, throwIfInterrupted } from "../process/signals.ts";
import { watchDirectory } from "../process/watch-directory.ts";
import { readEvents, type PastEvent } from "../store/events.ts";
import type { Present } from "../store/workdir.ts";
import { findRunning } from "./in-use.ts";

/** A qemu that was killed tells nothing: its sockets are looked at this often. */
const LOOK_MS = 500;

/**
 * Waits for something in a run that others may be talking to: by its log of events, so that qemu's one
 * conversation stays free.
 * @param accept sees all events of the run so far; undefined: not yet
 * @returns what it accepted, or how the waiting ended otherwise
 */
export async function waitForRun<T>(
  work: Present,
  limitMs: number,
  accept: (events: PastEvent[]) => T | undefined | Promise<T | undefined>,
): Promise<T | "ended" | "late"> {
  const deadline = Date.now() + limitMs;
  let next = Promise.withResolvers<void>();
  const onChange = (): void => next.resolve();
  using _watch = watchDirectory(work.dir, { everyMs: LOOK_MS }, onChange);
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

/** How long a qemu that has been told to go may take to flush its images. */
const FLUSH_MS = 30_000;

const isOver = (events: PastEvent[]): true | undefined =>
  events.some(({ event }) => event === "SHUTDOWN") || undefined;

/** Waits until the VM is off. @returns false when it is not within `limitMs` */
export async function waitForEnd(work: Present, limitMs: number): Promise<boolean> {
  using _step = beginStep(() => "waiting for the guest to power off");
  const how = await waitForRun(work, limitMs, isOver);
  if (how === "late") return false;
  // It has said so, and is going.
  return how === "ended" || (await waitForRun(work, FLUSH_MS, () => undefined)) === "ended";
}
