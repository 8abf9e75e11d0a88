import { closeSync, fstatSync, readSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { formatCommand } from "../qmp/commands.ts";
import { parseEvent, type QmpEvent } from "../qmp/events.ts";
import { MAX_SMALL_BYTES, openForReading, readTail } from "../lib/read-file.ts";
import { replaceVolatile } from "./files.ts";
import { WORK } from "./layout.ts";

/** One event of a run. */
export type PastEvent = QmpEvent & {
  /** By the host's clock. */
  at: Date;
};

/** Prepares the event log of a run: enables events in qemu, and clears those of the last run. */
export function startEvents(workdir: string): void {
  replaceVolatile(join(workdir, WORK.eventsIn), formatCommand("qmp_capabilities"));
  replaceVolatile(join(workdir, WORK.eventsOut), "");
}

/**
 * Events of the last run in order, the most recent ones if there are many. None if the log is missing or not a regular
 * file; a truncated last line is ignored.
 */
export function readEvents(workdir: string): PastEvent[] {
  try {
    return parseEvents(readTail(join(workdir, WORK.eventsOut)) ?? "");
  } catch (error) {
    // A symlink or pipe: the exit reason is unknown, which is not an error.
    if (error instanceof VmError) return [];
    throw error;
  }
}

/** Reads the events that a run logs from now on. */
export class EventTail implements Disposable {
  readonly #fd: number | undefined;
  #offset = 0;

  constructor(workdir: string) {
    try {
      this.#fd = openForReading(join(workdir, WORK.eventsOut));
      this.#offset = fstatSync(this.#fd).size;
    } catch {
      // None, or not a regular file: no events.
    }
  }

  /** Those that were not read before; of many, the last ones. */
  read(): PastEvent[] {
    if (this.#fd === undefined) return [];
    const { size } = fstatSync(this.#fd);
    const from = Math.max(this.#offset, size - MAX_SMALL_BYTES);
    const bytes = Buffer.alloc(Math.max(0, size - from));
    const length = readSync(this.#fd, bytes, 0, bytes.length, from);
    const whole = bytes.subarray(0, length).lastIndexOf("\n") + 1;
    this.#offset = from + whole;
    return parseEvents(bytes.toString("utf8", 0, whole));
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}

export function parseEvents(text: string): PastEvent[] {
  return text.split("\n").flatMap((line) => {
    if (!line.includes('"event"')) return [];
    try {
      const { event, data, timestamp } = JSON.parse(line) as Record<string, any>;
      const at = new Date(timestamp.seconds * 1000 + timestamp.microseconds / 1000);
      const parsed = Number.isNaN(at.getTime()) ? undefined : parseEvent(event, data);
      return parsed ? [{ ...parsed, at }] : [];
    } catch {
      return [];
    }
  });
}
