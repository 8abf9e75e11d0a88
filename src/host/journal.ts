import { fstatSync } from "node:fs";
import { isQuiet, log } from "../lib/log.ts";
import { findProgram, start } from "../process/exec.ts";
import type { Context } from "../vm/context.ts";

/** Time limit: a log daemon that does not accept a line must not delay the command. */
const LOGGER_MS = 5000;

/** Is stderr connected to the journal? Compares device and inode (systemd.exec(5), JOURNAL_STREAM). */
function isJournalOurStderr({ env }: Context): boolean {
  const { dev, ino } = fstatSync(2);
  return env.JOURNAL_STREAM === `${dev}:${ino}`;
}

/** Writes one line to the journal, or to the system log, with `logger`. */
export async function writeJournal(context: Context, line: string, good: boolean): Promise<void> {
  if (isJournalOurStderr(context)) {
    if (isQuiet() && good) log.always(line);
    return;
  }
  if (!findProgram("logger")) return;
  const priority = good ? "user.info" : "user.err";
  // Interruptions are recorded as well.
  const child = start(["logger", "-t", context.prog, "-p", priority, "--", line], { keepOnInterrupt: true });
  const timer = setTimeout(() => child.kill("SIGKILL"), LOGGER_MS);
  await child.done;
  clearTimeout(timer);
}
