import { beginStep, noteShown } from "../lib/activity.ts";
import { plain } from "../lib/text.ts";
import { isQuiet, onLogLine } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration } from "../lib/time.ts";
import type { Meter } from "../services/context.ts";

const BAR_WIDTH = 20;

/** One line: `backup S0 [#####      ] 45 % 512 MiB of 1.1 GiB, 180 MiB/s, 4 s left`. */
export function formatProgress(label: string, done: number, total: number, seconds: number): string {
  const bar = "#".repeat(Math.round(partOf(done, total) * BAR_WIDTH)).padEnd(BAR_WIDTH, ".");
  const percent = formatPercent(done, total).padStart(5);
  return `${label} [${bar}] ${percent} ${formatAmount(done, total, seconds)}`;
}

/** The same for a log: `backup S0: 45 %, 512 MiB of 1.1 GiB, 180 MiB/s, 4 s left`. */
export const formatProgressLine = (label: string, done: number, total: number, seconds: number): string =>
  `${label}: ${formatPercent(done, total)}, ${formatAmount(done, total, seconds)}`;

const partOf = (done: number, total: number): number => (total > 0 ? Math.min(done / total, 1) : 1);
const formatPercent = (done: number, total: number): string => `${Math.floor(partOf(done, total) * 100)} %`;

function formatAmount(done: number, total: number, seconds: number): string {
  const rate = seconds > 0 ? done / seconds : 0;
  const left =
    rate > 0 ? `, ${formatSize(Math.round(rate))}/s, ${formatDuration((total - done) / rate)} left` : "";
  return `${formatSize(done)} of ${formatSize(total)}${left}`;
}

const clearLine = (): void => void process.stderr.write("\r\x1b[K");

/** On a terminal a line that redraws itself; elsewhere a line of the log now and then. */
export function createMeter(label: string, totalBytes: number): Meter {
  const started = performance.now();
  let done = 0;
  const seconds = (): number => (performance.now() - started) / 1000;
  const step = beginStep(() => formatProgressLine(plain(label), done, totalBytes, seconds()));
  const finish = (): void => step[Symbol.dispose]();
  if (!process.stderr.isTTY || process.env.TERM === "dumb" || isQuiet())
    return { update: (bytes) => void (done = bytes), finish };
  onLogLine(clearLine);
  const draw = (): void => {
    const columns = process.stderr.columns || 80;
    const line = formatProgress(plain(label), done, totalBytes, seconds()).slice(0, columns - 1);
    process.stderr.write(`\r${line}\x1b[K`);
  };
  draw();
  noteShown();
  return {
    update(bytes) {
      // A bar that does not move says nothing: then a line of the log is due.
      if (bytes !== done) noteShown();
      done = bytes;
      draw();
    },
    finish() {
      clearLine();
      onLogLine(() => {});
      finish();
    },
  };
}
