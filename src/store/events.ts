import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { formatCommand } from "../qmp/commands.ts";
import { parseEvent, type QmpEvent } from "../qmp/events.ts";
import { readTail, replaceFile } from "./files.ts";
import { WORK } from "./layout.ts";

/** One thing that happened in a run. */
export type PastEvent = QmpEvent & {
  /** When, by the host's clock. */
  at: Date;
};

/** Prepares a run's log of events: asks qemu to tell, and forgets what the last run told. */
export function startEvents(workdir: string): void {
  replaceFile(join(workdir, WORK.eventsIn), formatCommand("qmp_capabilities"));
  replaceFile(join(workdir, WORK.eventsOut), "");
}

/**
 * What has happened in the last run, in order, the last events of many; nothing where no log is, or something else in
 * its place, and not what a crash cut off.
 */
export function readEvents(workdir: string): PastEvent[] {
  try {
    return parseEvents(readTail(join(workdir, WORK.eventsOut)) ?? "");
  } catch (error) {
    // A link, a pipe: how the run ended is not known, which stops no command.
    if (error instanceof VmError) return [];
    throw error;
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
