import { plain } from "../lib/text.ts";
import { isQuiet, onLogLine } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration } from "../lib/time.ts";
import type { Meter } from "../services/context.ts";

const BAR_WIDTH = 20;

/** One line: `backup S0 [#####      ] 45 % 512 MiB of 1.1 GiB, 180 MiB/s, 4 s left`. */
export function formatProgress(label: string, done: number, total: number, seconds: number): string {
  const part = total > 0 ? Math.min(done / total, 1) : 1;
  const bar = "#".repeat(Math.round(part * BAR_WIDTH)).padEnd(BAR_WIDTH, ".");
  const rate = seconds > 0 ? done / seconds : 0;
  const left =
    rate > 0 ? `, ${formatSize(Math.round(rate))}/s, ${formatDuration((total - done) / rate)} left` : "";
  const percent = String(Math.floor(part * 100)).padStart(3);
  return `${label} [${bar}] ${percent} % ${formatSize(done)} of ${formatSize(total)}${left}`;
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
      const columns = process.stderr.columns || 80;
      const line = formatProgress(plain(label), done, totalBytes, seconds).slice(0, columns - 1);
      process.stderr.write(`\r${line}\x1b[K`);
    },
    finish() {
      clearLine();
      onLogLine(() => {});
    },
  };
}
