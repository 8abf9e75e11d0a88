import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { log } from "../../lib/log.ts";
import { STDIN, STDOUT, terminalSize } from "../../lib/standard-streams.ts";
import { signalError, takeSignals, throwIfInterrupted } from "../../process/signals.ts";
import { writeOutput } from "../../process/stdout.ts";
import { isTerminal, rawTerminal, releaseStdin } from "../../process/terminal.ts";
import { findVms } from "../../vm/all.ts";
import type { Context } from "../../vm/context.ts";
import { openUser } from "../../vm/find.ts";
import { findQemus } from "../../vm/in-use.ts";
import { describeSelection, isSelected, type Selection } from "../../vm/list.ts";
import { readOwnSettings } from "../../vm/own-settings.ts";
import { GuestViews } from "./guest.ts";
import { takeSample, type Sample } from "./sample.ts";
import { formatUsages, measureUsage, type Usage } from "./usage.ts";

export interface TopRequest {
  selection: Selection;
  json: boolean;
  once: boolean;
  delaySeconds: number;
}

/** @throws 64 */
export function parseDelay(text = "2"): number {
  if (/^[1-9]\d{0,3}$/.test(text)) return Number(text);
  throw new VmError("usage", `--delay: '${text}' is not allowed`, {
    hint: "allowed: seconds from 1 to 9999",
  });
}

/** Between the two samples of a single table. */
const ONCE_MS = 500;

/** Shows what running VMs use: once, or in a table that is renewed until `q`. */
export async function showTop(
  context: Context,
  { selection, json, once, delaySeconds }: TopRequest,
): Promise<void> {
  const watched = new Watched(context, selection);
  if (!json && !once && isTerminal(STDOUT) && isTerminal(STDIN)) return follow(watched, delaySeconds * 1000);
  await watched.measure();
  await Bun.sleep(ONCE_MS);
  await watched.guests.settle();
  throwIfInterrupted();
  const usages = await watched.measure();
  if (json) return context.print(toJson(usages));
  if (usages.length === 0) return log.info(watched.describeNone());
  context.print(formatUsages(usages));
}

/** The running VMs, with their last samples. */
class Watched {
  /** Also those that were not selected, of the last measurement. */
  running = 0;
  readonly guests: GuestViews = new GuestViews();
  readonly #before = new Map<number, Sample>();

  constructor(
    private readonly context: Context,
    private readonly selection: Selection,
  ) {}

  async measure(): Promise<Usage[]> {
    this.running = 0;
    const { PROFILES } = (await openUser(this.context)).settings;
    const all = await Promise.all(
      findVms(this.context, PROFILES).map((directory) => this.#measureVm(directory)),
    );
    return all.flat();
  }

  /** Why no VM is shown. */
  describeNone(): string {
    if (this.running === 0) return "no VM is running";
    return `no running VM matches ${describeSelection(this.selection)}`;
  }

  async #measureVm(hostdir: string): Promise<Usage[]> {
    const { name, work, settings, labels } = await readOwnSettings(this.context, hostdir);
    if (work.state !== "present" || !settings) return [];
    const pid = findQemus(work)[0]?.pid;
    if (pid !== undefined) this.running++;
    const status = { name, directory: hostdir, state: "running", ...(labels && { labels }) } as const;
    if (!isSelected(status, this.selection)) return [];
    const sample = pid === undefined ? undefined : await takeSample(work.dir, pid);
    if (pid === undefined || sample === undefined) return [];
    const before = this.#before.get(pid);
    this.#before.set(pid, sample);
    const filesystems = this.guests.look(pid, work.dir, sample.hasAgent);
    const vm = { name, directory: hostdir, pid, memoryBytes: settings.MEMORY * 2 ** 20, filesystems };
    return [measureUsage(vm, before, sample)];
  }
}

/** Alternate screen, without a cursor; and back (xterm, ctlseqs). */
const ENTER = "\x1b[?1049h\x1b[?25l";
const LEAVE = "\x1b[?25h\x1b[?1049l";
const CTRL_C = 0x03;
const CTRL_Z = 0x1a;

/** What the loop of `follow` waits for. */
interface Following {
  ended: boolean;
  /** Ctrl-Z, or SIGTSTP. */
  suspends: boolean;
  next: PromiseWithResolvers<void>;
}

async function follow(watched: Watched, delayMs: number): Promise<void> {
  const over = Promise.withResolvers<void>();
  const state: Following = { ended: false, suspends: false, next: Promise.withResolvers<void>() };
  const end = (): void => void (state.ended = true);
  over.promise.then(end, end);
  using _taken = takeSignals((signal) => over.reject(signalError(signal)));
  throwIfInterrupted();
  let raw = rawTerminal();
  const redraw = (): void => state.next.resolve();
  const suspend = (): void => {
    state.suspends = true;
    redraw();
  };
  process.stdin.on("data", (keys: Buffer) => {
    if (keys.includes(CTRL_C)) over.reject(signalError("SIGINT"));
    else if (keys.includes("q")) over.resolve();
    else if (keys.includes(CTRL_Z)) suspend();
  });
  // The terminal is gone: EIO.
  process.stdin.on("error", () => over.resolve());
  process.stdin.once("end", () => over.resolve()).resume();
  process.on("SIGWINCH", redraw);
  process.on("SIGTSTP", suspend);
  try {
    if (!(await draw(ENTER))) return;
    while (!state.ended) {
      const usages = await watched.measure();
      if (state.suspends) {
        await draw(LEAVE);
        raw[Symbol.dispose]();
        await stopJob(suspend);
        raw = rawTerminal();
        state.suspends = false;
        if (!(await draw(ENTER))) return;
      }
      state.next = Promise.withResolvers<void>();
      if (!(await draw(frameOf(usages, watched)))) return;
      const timer = setTimeout(redraw, delayMs);
      await Promise.race([state.next.promise, over.promise]).finally(() => clearTimeout(timer));
    }
    await over.promise;
  } finally {
    process.off("SIGWINCH", redraw);
    process.off("SIGTSTP", suspend);
    await draw(LEAVE);
    raw[Symbol.dispose]();
    releaseStdin();
  }
}

/** If the kernel ignores SIGTSTP, as no shell is there to continue the job, no SIGCONT comes. */
const IGNORED_MS = 200;

/** Stops the job, as Ctrl-Z does elsewhere, until its shell continues it. @param handler of SIGTSTP */
async function stopJob(handler: () => void): Promise<void> {
  const continued = Promise.withResolvers<void>();
  const onContinue = (): void => continued.resolve();
  process.on("SIGCONT", onContinue);
  process.off("SIGTSTP", handler);
  process.kill(0, "SIGTSTP");
  await Promise.race([continued.promise, Bun.sleep(IGNORED_MS)]);
  process.on("SIGTSTP", handler);
  process.off("SIGCONT", onContinue);
}

/** @returns false if the terminal is gone: the end of `top`, as with a closed pipe */
const draw = (text: string): Promise<boolean> => writeOutput(text).catch(() => false);

/** One screen: as many lines and columns as the terminal has. */
function frameOf(usages: readonly Usage[], watched: Watched): string {
  const { columns, rows } = terminalSize();
  const text = usages.length === 0 ? `${watched.describeNone()}\n` : formatUsages(usages);
  const lines = ["q: quit", ...text.split("\n").slice(0, -1)].slice(0, rows);
  return `\x1b[H${lines.map((line) => `${line.slice(0, columns)}\x1b[K`).join("\r\n")}\x1b[J`;
}
