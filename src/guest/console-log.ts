import { closeSync, readSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { tameText } from "../lib/text.ts";
import { interruption } from "../process/signals.ts";
import { writeOutput } from "../process/stdout.ts";
import { isListening } from "../process/unix-socket.ts";
import { watchDirectory } from "../process/watch-directory.ts";
import { lstatOf, openForReading } from "../lib/read-file.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { openVm, requireWork } from "../vm/find.ts";

const PIECE_BYTES = 64 << 10;

/** A killed qemu leaves its sockets, without an event; one that exits removes them. */
const LOOK_MS = 5000;
/** Where the directory cannot be watched. */
const UNWATCHED_LOOK_MS = 300;

/**
 * Prints the output of the serial console since the last start of the VM.
 * @param follow follow the output until the guest is off
 * @throws 66 if it was never started
 */
export async function printConsoleLog(context: Context, follow: boolean): Promise<void> {
  const { dir } = requireWork(await openVm(context), "print the console log");
  const path = join(dir, WORK.consoleLog);
  if (!lstatOf(path)) throw new VmError("noInput", `cannot print the console log: ${path} does not exist`);
  const fd = openForReading(path);
  const decoder = new TextDecoder();
  const changes = follow ? new Changes(dir) : undefined;
  try {
    for (;;) {
      // Checked before reading, so that output before the end is not missed.
      const running = changes !== undefined && (await changes.isRunning());
      if (!(await copyRest(fd, decoder)) || !running || interruption.aborted) break;
      await changes.next();
    }
  } finally {
    changes?.[Symbol.dispose]();
    closeSync(fd);
  }
  interruption.throwIfAborted();
}

/**
 * Prints the rest of the log with colours but no other escape sequences: the output may reach a terminal later.
 * @returns false if the reader is gone
 */
async function copyRest(fd: number, decoder: TextDecoder): Promise<boolean> {
  for (;;) {
    const piece = Buffer.alloc(PIECE_BYTES);
    const length = readSync(fd, piece);
    if (length === 0) return true;
    const text = tameText(decoder.decode(piece.subarray(0, length), { stream: true }));
    if (!(await writeOutput(text))) return false;
  }
}

/** Wakes the reader when the log grows or qemu exits. */
class Changes implements Disposable {
  readonly #dir: string;
  readonly #watch: Disposable;
  #pending = false;
  #wake = (): void => {};
  /** Checking connects to its socket: only if there is a reason. */
  #ask = true;
  #running = false;

  constructor(dir: string) {
    this.#dir = dir;
    const limits = { everyMs: LOOK_MS, unwatchedMs: UNWATCHED_LOOK_MS };
    this.#watch = watchDirectory(dir, limits, (name) => {
      if (name === WORK.consoleLog) this.#note(false);
      else if (name === WORK.monitor || name === undefined) this.#note(true);
    });
    interruption.addEventListener("abort", () => this.#note(false), { once: true });
  }

  async isRunning(): Promise<boolean> {
    if (this.#ask) {
      this.#ask = false;
      this.#running = await isListening(join(this.#dir, WORK.monitor));
    }
    return this.#running;
  }

  async next(): Promise<void> {
    if (!this.#pending) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
    this.#pending = false;
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
  }

  #note(ask: boolean): void {
    this.#ask ||= ask;
    this.#pending = true;
    this.#wake();
  }
}
