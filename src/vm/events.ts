import { dirname } from "node:path";
import { toJsonLine } from "../lib/json.ts";
import { log } from "../lib/log.ts";
import { plain, printable } from "../lib/text.ts";
import { formatTimestamp } from "../lib/time.ts";
import { interruption, throwIfInterrupted } from "../process/signals.ts";
import { writeOutput } from "../process/stdout.ts";
import { watchDirectory } from "../process/watch-directory.ts";
import { findHistoryProblem, HistoryReader, historyPath, type VmEvent } from "../store/history.ts";
import { isLocked } from "../store/lock.ts";
import { isExitUnrecorded } from "../store/mark.ts";
import { requireVm } from "../store/no-vm.ts";
import { resolveWork, type Workdir } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { describeEnded, inferEnd } from "./exit-reason.ts";
import { findHostdir, openUser } from "./find.ts";
import { findRunning } from "./in-use.ts";
import { findVms, shortenDirectories } from "./all.ts";
import { listRunEvents } from "./run-events.ts";

/** Arguments of `events`. */
export interface EventsRequest {
  /** Of all VMs, rather than of the one in HOSTDIR. */
  all: boolean;
  /** Print further ones as they happen. */
  follow: boolean;
  json: boolean;
  /** Only the last ones. */
  lines: number | undefined;
}

/** For what writes no file that is watched: a killed qemu, a new VM. */
const POLL_MS = 1000;
/** The command that ends a run, or waits for it, records its end sooner, and knows more. */
const RECORDED_MS = 3000;
/** How many past events `--follow` begins with. */
const FOLLOWED = 10;

/**
 * Prints what happened to a VM, or to all, oldest first.
 * @throws 66 without a VM
 */
export async function showEvents(context: Context, request: EventsRequest): Promise<void> {
  const { all, follow, json, lines = follow ? FOLLOWED : undefined } = request;
  const { PROFILES } = (await openUser(context)).settings;
  const directories = (): string[] => (all ? findVms(context, PROFILES) : [findHostdir(context)]);
  if (!all) requireVm(findHostdir(context));
  const nameOf = shortenDirectories(PROFILES);
  const format = (event: VmEvent): string =>
    json ? toJsonLine(event) : `${formatEvent(event, all ? nameOf(event.vm) : undefined)}\n`;
  const problem = findHistoryProblem(context);
  if (problem !== undefined) log.warn(`events are not recorded: ${problem}`);
  const ends = new MissedEnds();
  const history = new HistoryReader(context);
  const first = await collectEvents(history, all, findRuns(directories()), ends);
  const shown = lines === undefined ? first : first.slice(Math.max(0, first.length - lines));
  if (!follow) return context.print(shown.map(format).join(""));
  const news = new News(first);
  ends.waitMs = RECORDED_MS;
  if (!(await writeOutput(printable(shown.map(format).join(""))))) return;
  let next = Promise.withResolvers<void>();
  const onChange = (): void => next.resolve();
  const watched = new Map<string, Disposable>();
  watched.set("", watchDirectory(dirname(historyPath(context)), { everyMs: POLL_MS }, onChange));
  interruption.addEventListener("abort", onChange);
  try {
    for (;;) {
      await next.promise;
      next = Promise.withResolvers<void>();
      throwIfInterrupted();
      const now = findRuns(directories());
      for (const { work } of now.runs)
        if (!watched.has(work.dir))
          watched.set(work.dir, watchDirectory(work.dir, { everyMs: POLL_MS }, onChange));
      const found = news.take(await collectEvents(history, all, now, ends));
      if (!(await writeOutput(printable(found.map(format).join(""))))) return;
    }
  } finally {
    interruption.removeEventListener("abort", onChange);
    for (const watch of watched.values()) watch[Symbol.dispose]();
  }
}

/** VMs, and those of them whose last run is not recorded as ended. */
interface Runs {
  directories: readonly string[];
  runs: readonly { hostdir: string; work: Workdir }[];
}

const findRuns = (directories: readonly string[]): Runs => ({
  directories,
  runs: directories.flatMap((hostdir) => {
    try {
      const work = resolveWork(hostdir);
      return work.state === "present" && isExitUnrecorded(work.mark) ? [{ hostdir, work }] : [];
    } catch {
      // Refused or unreadable: `status` says so.
      return [];
    }
  }),
});

/** What was recorded since the last time, and what the logs of runs have. */
async function collectEvents(
  history: HistoryReader,
  all: boolean,
  { directories, runs }: Runs,
  ends: MissedEnds,
): Promise<VmEvent[]> {
  const present = runs.map(async ({ hostdir, work }) => [
    ...listRunEvents(hostdir, work.dir),
    ...(await ends.describe(hostdir, work)),
  ]);
  const past = history.read().filter(({ vm }) => all || directories.includes(vm));
  const events = [...past, ...(await Promise.all(present)).flat()];
  return events.toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at));
}

/** Ends of runs that the next command records. */
class MissedEnds {
  /** For how long qemu must be gone. */
  waitMs = 0;
  /** Since when, by directory. */
  readonly #gone = new Map<string, number>();

  async describe(hostdir: string, work: Workdir): Promise<VmEvent[]> {
    const { dir, mark } = work;
    // A command that starts or stops the VM has its lock.
    if (isLocked(hostdir) || (await findRunning(work)) !== undefined) {
      this.#gone.delete(dir);
      return [];
    }
    const since = this.#gone.get(dir) ?? performance.now();
    this.#gone.set(dir, since);
    if (performance.now() - since < this.waitMs) return [];
    const ended = inferEnd(dir, mark.run!);
    const at = ended.at.toISOString();
    return [{ at, vm: hostdir, event: "ended", how: describeEnded(ended), end: ended.end }];
  }
}

/** Tells new events from those that were there before. */
export class News {
  readonly #seen = new Set<string>();
  /** VMs whose run has ended: it is recorded afterwards, perhaps in other words. */
  readonly #ended = new Set<string>();

  constructor(past: readonly VmEvent[]) {
    this.take(past);
  }

  take(events: readonly VmEvent[]): VmEvent[] {
    return events.filter((event) => {
      const key = JSON.stringify([event.at, event.vm, event.event, event.how, event.snapshot, event.job]);
      if (this.#seen.has(key)) return false;
      this.#seen.add(key);
      if (event.event === "started") this.#ended.delete(event.vm);
      if (event.event !== "ended") return true;
      if (this.#ended.has(event.vm)) return false;
      this.#ended.add(event.vm);
      return true;
    });
  }
}

/** `2026-11-30 07:10:12  web  ended: the guest shut down` */
function formatEvent({ at, event, how, snapshot, job, status }: VmEvent, name: string | undefined): string {
  // The text of an error has its status already, or a reason.
  const shown = how || status === undefined || status === 0 ? undefined : `status ${status}`;
  const about = [snapshot ?? job, how, shown];
  const details = about.filter((text) => text !== undefined && text !== "").join(", ");
  return [
    formatTimestamp(new Date(at)),
    ...(name === undefined ? [] : [plain(name)]),
    plain(details === "" ? event : `${event}: ${details}`),
  ].join("  ");
}
