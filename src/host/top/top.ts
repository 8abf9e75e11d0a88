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
    return [
      measureUsage({ name, directory: hostdir, pid, memoryBytes: settings.MEMORY * 2 ** 20 }, before, sample),
    ];
  }
}

/** Alternate screen, without a cursor; and back (xterm, ctlseqs). */
const ENTER = "\x1b[?1049h\x1b[?25l";
const LEAVE = "\x1b[?25h\x1b[?1049l";
const CTRL_C = 0x03;

async function follow(watched: Watched, delayMs: number): Promise<void> {
  const over = Promise.withResolvers<void>();
  const state = { ended: false, next: Promise.withResolvers<void>() };
  const end = (): void => void (state.ended = true);
  over.promise.then(end, end);
  using _taken = takeSignals((signal) => over.reject(signalError(signal)));
  throwIfInterrupted();
  using _raw = rawTerminal();
  process.stdin.on("data", (keys: Buffer) => {
    if (keys.includes(CTRL_C)) over.reject(signalError("SIGINT"));
    else if (keys.includes("q")) over.resolve();
  });
  // The terminal is gone: EIO.
  process.stdin.on("error", () => over.resolve());
  process.stdin.once("end", () => over.resolve()).resume();
  const redraw = (): void => state.next.resolve();
  process.on("SIGWINCH", redraw);
  try {
    if (!(await draw(ENTER))) return;
    while (!state.ended) {
      if (!(await draw(frameOf(await watched.measure(), watched)))) return;
      state.next = Promise.withResolvers<void>();
      const timer = setTimeout(redraw, delayMs);
      await Promise.race([state.next.promise, over.promise]).finally(() => clearTimeout(timer));
    }
    await over.promise;
  } finally {
    process.off("SIGWINCH", redraw);
    await draw(LEAVE);
    releaseStdin();
  }
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
