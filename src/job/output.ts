import type { VmError } from "../lib/errors.ts";
import { tameText } from "../lib/text.ts";
import { writeOutput } from "../process/stdout.ts";
import { STDOUT } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

/** Writes a job's log on stdout, as fast as the reader takes it. */
export class JobLogWriter {
  readonly #decoder = isTerminal(STDOUT) ? new TextDecoder() : undefined;
  #over = false;
  /** Why a part of the log is missing on stdout; the job continues without a reader. */
  failure: VmError | undefined;

  readonly write = async (piece: Uint8Array): Promise<void> => {
    if (this.#over) return;
    try {
      const text = this.#decoder && tameText(this.#decoder.decode(piece, { stream: true }));
      this.#over = !(await writeOutput(text ?? piece));
    } catch (error) {
      this.#over = true;
      this.failure = error as VmError;
    }
  };
}
