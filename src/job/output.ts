import type { VmError } from "../lib/errors.ts";
import { tameText } from "../lib/text.ts";
import { writeOutput } from "../process/stdout.ts";
import { STDOUT } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

/** Writes a job's log to stdout, as fast as its reader accepts it. */
export class JobLogWriter {
  readonly #decoder = isTerminal(STDOUT) ? new TextDecoder() : undefined;
  #closed = false;
  /** Why stdout lacks a part of the log; the job continues without a reader. */
  failure: VmError | undefined;

  readonly write = async (piece: Uint8Array): Promise<void> => {
    if (this.#closed) return;
    try {
      const text = this.#decoder && tameText(this.#decoder.decode(piece, { stream: true }));
      this.#closed = !(await writeOutput(text ?? piece));
    } catch (error) {
      this.#closed = true;
      this.failure = error as VmError;
    }
  };
}
