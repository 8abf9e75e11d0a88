import { closeSync, writeSync } from "node:fs";
import { pipe } from "./libc.ts";

/** A pipe by which a child learns that this program has died: it reads end of file, or before that a line that all is well. */
export class Lifeline {
  readonly #writeEnd: number;
  /** The end to read, for the child. */
  readonly fd: number;
  #isOver = false;

  constructor() {
    [this.fd, this.#writeEnd] = pipe();
  }

  /** Once the child has been started, or could not be. */
  handOver(): void {
    closeSync(this.fd);
  }

  /** The child has nothing to do any more. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    try {
      writeSync(this.#writeEnd, "\n");
    } catch {
      // It has exited: SIGKILL to its process group.
    }
    closeSync(this.#writeEnd);
  }
}
