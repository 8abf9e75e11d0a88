import { isQuiet, log } from "./log.ts";
import { formatDuration } from "./time.ts";

/** When the first line about work in progress is due, and then the next ones. */
export interface ActivityLimits {
  firstMs: number;
  nextMs: number;
  /** For a line that reads as the one before. */
  sameMs: number;
}

/** With a tick the first two stay below 2 and 30 s. */
const LIMITS: ActivityLimits = { firstMs: 1500, nextMs: 28_000, sameMs: 60_000 };
/** Interval of checks. */
const TICK_MS = 250;

/** A program that is the only work is named after this time. */
const CHILD_MS = 1000;

/** Work in progress, outermost first: functions that return its description. */
const steps = new Set<() => string>();
/** Programs that were started and have not ended, oldest first. */
const children = new Set<{ name: string; pid: number; startedAt: number }>();
let shownAt = 0;
let shownLine = "";
let shown = false;
/** Starts the checks of a watched command, with its first work: many have none. */
let beginChecks = (): void => {};

/**
 * Begins work that may take long; the disposal ends it.
 * @param describe what a line about it says: `backup S0: 512 MiB of 1.1 GiB`
 */
export function beginStep(describe: () => string): Disposable {
  // One key for each, also where two have the same function.
  const step = (): string => describe();
  steps.add(step);
  beginChecks();
  return { [Symbol.dispose]: () => void steps.delete(step) };
}

/** The same for a program that is waited for. */
export function beginChild(name: string, pid: number): Disposable {
  const child = { name, pid, startedAt: performance.now() };
  children.add(child);
  beginChecks();
  return { [Symbol.dispose]: () => void children.delete(child) };
}

/** A progress bar has just shown how far the work is. */
export function noteShown(): void {
  shown = true;
  shownAt = performance.now();
}

function oldestChild(): { name: string; pid: number; ranMs: number } | undefined {
  const [oldest] = children;
  return oldest && { ...oldest, ranMs: performance.now() - oldest.startedAt };
}

/** Steps; and the oldest program, where there is no step, or where that program has run for longer than `longMs`. */
function describeWork(longMs: number): string {
  const parts = [...steps].map((describe) => describe());
  const oldest = oldestChild();
  if (!oldest) return parts.join("; ");
  const { ranMs } = oldest;
  if (parts.length === 0 || ranMs > longMs)
    parts.push(`waiting for ${oldest.name} (pid ${oldest.pid}), ${formatDuration(ranMs / 1000)}`);
  return parts.join("; ");
}

/**
 * Logs a line about the work in progress within 2 s, and then one every 30 s, or every minute if it reads the same, until
 * disposed of. Quiet commands log none; neither do those without work of their own, such as `run` while the guest runs.
 */
export function watchActivity({ firstMs, nextMs, sameMs }: ActivityLimits = LIMITS): Disposable {
  shown = false;
  shownLine = "";
  shownAt = performance.now();
  const tick = (): void => {
    if (steps.size + children.size === 0 || isQuiet()) return;
    const passedMs = performance.now() - shownAt;
    if (passedMs < (shown ? nextMs : firstMs)) return;
    // A program that has only just been started is nothing that is waited for.
    if (steps.size === 0 && oldestChild()!.ranMs < Math.min(CHILD_MS, firstMs)) return;
    const line = describeWork(nextMs);
    if (line === shownLine && passedMs < sameMs) return;
    noteShown();
    shownLine = line;
    log.info(line);
  };
  let timer: ReturnType<typeof setInterval> | undefined;
  const outer = beginChecks;
  beginChecks = () => {
    if (timer !== undefined) return;
    timer = setInterval(tick, Math.min(TICK_MS, firstMs));
    timer.unref();
  };
  if (steps.size + children.size > 0) beginChecks();
  return {
    [Symbol.dispose]: () => {
      beginChecks = outer;
      clearInterval(timer);
    },
  };
}
