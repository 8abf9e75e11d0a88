import { beginStep, noteShown } from "../lib/activity.ts";
import { plain } from "../lib/text.ts";
import { isQuiet, onLogLine } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration } from "../lib/time.ts";
import type { Meter } from "../vm/context.ts";
import { STDERR, writeError } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

const BAR_WIDTH = 20;
/** A narrower bar shows nothing. */
const MIN_BAR_WIDTH = 5;

const partOf = (done: number, total: number): number => (total > 0 ? Math.min(done / total, 1) : 1);
const formatPercent = (done: number, total: number): string => `${Math.floor(partOf(done, total) * 100)} %`;

/** `, 180 MiB/s, 4 s left`; empty before the first byte. */
function formatRate(done: number, total: number, seconds: number): string {
  const rate = seconds > 0 ? done / seconds : 0;
  return rate > 0 ? `, ${formatSize(Math.round(rate))}/s, ${formatDuration((total - done) / rate)} left` : "";
}

/** For a log: `backup S0: 45 %, 512 MiB of 1.1 GiB, 180 MiB/s, 4 s left`. */
export const formatProgressLine = (label: string, done: number, total: number, seconds: number): string =>
  `${label}: ${formatPercent(done, total)}, ${formatSize(done)} of ${formatSize(total)}${formatRate(done, total, seconds)}`;

/**
 * One line: `backup S0 [#####      ] 45 % 512 MiB of 1.1 GiB, 180 MiB/s, 4 s left`.
 * @param columns of the terminal: the bar becomes narrower, then the rate and the label go
 */
export function formatProgress(
  label: string,
  done: number,
  total: number,
  seconds: number,
  columns = Infinity,
): string {
  const part = partOf(done, total);
  const amount = `${formatPercent(done, total).padStart(5)} ${formatSize(done)} of ${formatSize(total)}`;
  const lineOf = (name: string, width: number, end: string): string =>
    `${name}[${"#".repeat(Math.round(part * width)).padEnd(width, ".")}] ${amount}${end}`;
  const forms: [name: string, end: string][] = [
    [`${label} `, formatRate(done, total, seconds)],
    [`${label} `, ""],
    ["", ""],
  ];
  for (const [name, end] of forms) {
    const room = columns - lineOf(name, 0, end).length;
    if (room >= MIN_BAR_WIDTH) return lineOf(name, Math.min(room, BAR_WIDTH), end);
  }
  return amount.trimStart().slice(0, columns);
}

const clearLine = (): void => void writeError("\r\x1b[K");

/** On a terminal a line that redraws itself; elsewhere a line of the log now and then. */
export function createMeter(label: string, totalBytes: number): Meter {
  const started = performance.now();
  let done = 0;
  let total = totalBytes;
  const seconds = (): number => (performance.now() - started) / 1000;
  const step = beginStep(() => formatProgressLine(plain(label), done, total, seconds()));
  const finish = (): void => step[Symbol.dispose]();
  const note = (doneBytes: number, of = total): void => {
    done = doneBytes;
    total = of;
  };
  if (!isTerminal(STDERR) || process.env.TERM === "dumb" || isQuiet()) return { update: note, finish };
  onLogLine(clearLine);
  const draw = (): void => {
    // The last column stays free: some terminals wrap after it.
    const columns = (process.stderr.columns || 80) - 1;
    const line = formatProgress(plain(label), done, total, seconds(), columns);
    void writeError(`\r${line}\x1b[K`);
  };
  draw();
  noteShown();
  return {
    update(bytes, of) {
      // If the bar does not move, log a line.
      if (bytes !== done) noteShown();
      note(bytes, of);
      draw();
    },
    finish() {
      clearLine();
      onLogLine(() => {});
      finish();
    },
  };
}
