import { VmError } from "../lib/errors.ts";
import { readTail } from "../lib/read-file.ts";
import { quoteLine } from "../lib/text.ts";

/** Bytes at the end of the log to read for its last lines. */
const LOG_END_BYTES = 64 << 10;

/** Last lines of qemu's log; empty if there is none, or it is not a regular file. */
export function readLastLines(logPath: string): string {
  let text = "";
  try {
    text = readTail(logPath, LOG_END_BYTES) ?? "";
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
  }
  return text.trim().split("\n").slice(-4).map(quoteLine).join("\n  ");
}
