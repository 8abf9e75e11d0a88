import { fstatSync } from "node:fs";
import { isQuiet, log } from "../lib/log.ts";
import { findProgram, start } from "../process/exec.ts";
import type { Context } from "../vm/context.ts";

/** A log daemon that does not take a line must hold nobody up. */
const LOGGER_MS = 5000;

/** Does our stderr go to the journal? It says so by device and inode (systemd.exec(5), JOURNAL_STREAM). */
function isJournalOurStderr({ env }: Context): boolean {
  const { dev, ino } = fstatSync(2);
  return env.JOURNAL_STREAM === `${dev}:${ino}`;
}

/** Writes a line to the journal, or to whatever takes what `logger` sends: once, however much is told on stderr. */
export async function writeJournal(context: Context, line: string, good: boolean): Promise<void> {
  if (isJournalOurStderr(context)) {
    if (isQuiet() && good) log.always(line);
    return;
  }
  if (!findProgram("logger")) return;
  const priority = good ? "user.info" : "user.err";
  // Also to be told of an interruption.
  const child = start(["logger", "-t", context.prog, "-p", priority, "--", line], { keepOnInterrupt: true });
  const timer = setTimeout(() => child.kill("SIGKILL"), LOGGER_MS);
  await child.done;
  clearTimeout(timer);
}
