import { VmError } from "../lib/errors.ts";
import { readTail } from "../lib/read-file.ts";
import { quoteLine } from "../lib/text.ts";

/** The end of a log that its last lines are taken from. */
const LOG_END_BYTES = 64 << 10;

/** The last lines that qemu printed; empty where no log is, or something else in its place. */
export function lastWords(logPath: string): string {
  let text = "";
  try {
    text = readTail(logPath, LOG_END_BYTES) ?? "";
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
  }
  return text.trim().split("\n").slice(-4).map(quoteLine).join("\n  ");
}
