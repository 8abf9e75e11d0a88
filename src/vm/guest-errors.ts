import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import type { QmpClient } from "../qmp/client.ts";
import { followPanic, type QmpEvent } from "../qmp/events.ts";
import { readEvents } from "../store/events.ts";
import { freeBytes } from "../store/files.ts";
import { isExitUnrecorded } from "../store/mark.ts";
import type { Workdir } from "../store/workdir.ts";

/** A guest that was paused for lack of space is resumed when this much is free. */
const RESUME_BYTES = 64 << 20;
/** There is no event for free space. */
const POLL_MS = 2000;

/** An error inside a running machine. */
export interface GuestError {
  kind: "panic" | "panic before" | "disk" | "paused" | "no-space";
  /** `I/O error on a disk of the guest: …` */
  text: string;
}

/**
 * Pure.
 * @param directory where the disks are
 */
export function parseGuestError({ event, data }: QmpEvent, directory: string): GuestError | undefined {
  if (event === "GUEST_PANICKED") return { kind: "panic", text: "the guest's kernel panicked" };
  // qapi/block-core.json, BLOCK_IO_ERROR
  if (event !== "BLOCK_IO_ERROR" || data.action === "ignore") return undefined;
  const where = `${String(data["node-name"])}, ${String(data.operation)}`;
  if (data.action !== "stop")
    return {
      kind: "disk",
      text: `I/O error on a disk of the guest: ${String(data.reason)} (${where}); reported to the guest`,
    };
  return data.nospace === true
    ? { kind: "no-space", text: `guest paused: no space left for its disks in ${directory} (${where})` }
    : { kind: "paused", text: `guest paused: ${String(data.reason)} (${where})` };
}

/**
 * Errors of a run so far, the last of each kind, from its log of events: for detached guests. A pause counts until the
 * guest is resumed.
 */
export function findGuestErrors(workdir: string, events: QmpEvent[] = readEvents(workdir)): GuestError[] {
  const found = new Map<GuestError["kind"], GuestError>();
  for (const event of events) {
    if (event.event === "RESUME") {
      found.delete("paused");
      found.delete("no-space");
    }
    if (event.event === "RESET" && found.delete("panic"))
      found.set("panic before", {
        kind: "panic before",
        text: "the guest's kernel panicked, and was restarted since",
      });
    const error = parseGuestError(event, workdir);
    if (error) found.set(error.kind, error);
  }
  return [...found.values()];
}

/** Has the guest's kernel panicked, and was not restarted since? */
export const hasPanicked = ({ dir, mark }: Workdir): boolean =>
  // After a run the log of events stays: it is not that of a job.
  isExitUnrecorded(mark) && readEvents(dir).reduce(followPanic, false);

/** Is there enough space to resume a guest that was paused for lack of it? */
export const hasSpaceToResume = (directory: string): boolean => freeBytes(directory) >= RESUME_BYTES;

/** `64 MiB are free in DIR` */
export const describeResumeCondition = (directory: string): string =>
  `${formatSize(RESUME_BYTES)} are free in ${directory}`;

/** For those who wait for the run. */
const ADVICE: Partial<Record<GuestError["kind"], string>> = {
  paused: "; Ctrl-C twice kills it",
  panic: "; unless it reboots by itself, Ctrl-C kills it",
};

/**
 * Reports errors inside a running machine. qemu pauses the guest when the space for its disks runs out; this resumes it
 * when there is space.
 */
export class GuestErrorMonitor implements Disposable {
  #timer: ReturnType<typeof setInterval> | undefined;
  qmp: QmpClient | undefined;

  /** @param onNoSpace called instead of a warning and the wait for space */
  constructor(
    private readonly directory: string,
    private readonly onNoSpace?: () => void,
  ) {}

  onEvent(event: QmpEvent): void {
    const error = parseGuestError(event, this.directory);
    if (!error) return;
    if (error.kind !== "no-space") log.warn(`${error.text}${ADVICE[error.kind] ?? ""}`);
    if (error.kind !== "no-space" || this.#timer) return;
    if (this.onNoSpace) return this.onNoSpace();
    log.warn(error.text);
    log.info(`  it will be resumed as soon as ${describeResumeCondition(this.directory)}`);
    this.#timer = setInterval(() => this.#resume(), POLL_MS);
  }

  #resume(): void {
    if (!hasSpaceToResume(this.directory)) return;
    this[Symbol.dispose]();
    log.info("space is available: guest resumed");
    this.qmp?.execute("cont").catch(() => {});
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
