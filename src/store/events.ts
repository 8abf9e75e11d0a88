import { join } from "node:path";
import type { QmpEvent } from "../qmp/protocol.ts";
import { readSmall, replaceFile } from "./files.ts";
import { WORK } from "./layout.ts";

/** One thing that happened in a run. */
export interface PastEvent extends QmpEvent {
  /** When, by the host's clock. */
  at: Date;
}

/** Prepares a run's log of events: asks qemu to tell, and forgets what the last run told. */
export function startEvents(workdir: string): void {
  replaceFile(join(workdir, WORK.eventsIn), '{"execute":"qmp_capabilities"}\n');
  replaceFile(join(workdir, WORK.eventsOut), "");
}

/** What has happened in the last run, in order; nothing where no log is, and not what a crash cut off. */
export const readEvents = (workdir: string): PastEvent[] =>
  parseEvents(readSmall(join(workdir, WORK.eventsOut)) ?? "");

export function parseEvents(text: string): PastEvent[] {
  return text.split("\n").flatMap((line) => {
    if (!line.includes('"event"')) return [];
    try {
      const { event, data, timestamp } = JSON.parse(line) as Record<string, any>;
      const at = new Date(timestamp.seconds * 1000 + timestamp.microseconds / 1000);
      return typeof event === "string" && !Number.isNaN(at.getTime())
        ? [{ event, data: data ?? {}, at }]
        : [];
    } catch {
      return [];
    }
  });
}
