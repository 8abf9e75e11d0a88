import { plain } from "../lib/text.ts";
import { isQuiet, onLogLine } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration } from "../lib/time.ts";
import type { Meter } from "../services/context.ts";

const BAR_WIDTH = 20;
/** A narrower bar shows nothing. */
const MIN_BAR_WIDTH = 5;

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
  const part = total > 0 ? Math.min(done / total, 1) : 1;
  const rate = seconds > 0 ? done / seconds : 0;
  const percent = String(Math.floor(part * 100)).padStart(3);
  const amount = `${percent} % ${formatSize(done)} of ${formatSize(total)}`;
  const left = `, ${formatSize(Math.round(rate))}/s, ${formatDuration((total - done) / rate)} left`;
  const lineOf = (name: string, width: number, end: string): string =>
    `${name}[${"#".repeat(Math.round(part * width)).padEnd(width, ".")}] ${amount}${end}`;
  const forms: [name: string, end: string][] = [
    [`${label} `, rate > 0 ? left : ""],
    [`${label} `, ""],
    ["", ""],
  ];
  for (const [name, end] of forms) {
    const room = columns - lineOf(name, 0, end).length;
    if (room >= MIN_BAR_WIDTH) return lineOf(name, Math.min(room, BAR_WIDTH), end);
  }
  return amount.trimStart().slice(0, columns);
}

const clearLine = (): void => void process.stderr.write("\r\x1b[K");

/** On a terminal a line that redraws itself; elsewhere nothing: the work ends with a summary of its own. */
export function createMeter(label: string, totalBytes: number): Meter {
  if (!process.stderr.isTTY || process.env.TERM === "dumb" || isQuiet())
    return { update: () => {}, finish: () => {} };
  const started = performance.now();
  onLogLine(clearLine);
  return {
    update(done) {
      const seconds = (performance.now() - started) / 1000;
      // The last column stays free: some terminals wrap behind it.
      const columns = (process.stderr.columns || 80) - 1;
      const line = formatProgress(plain(label), done, totalBytes, seconds, columns);
      process.stderr.write(`\r${line}\x1b[K`);
    },
    finish() {
      clearLine();
      onLogLine(() => {});
    },
  };
}
