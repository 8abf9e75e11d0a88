import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { QmpEvent } from "../qmp/events.ts";
import { readEvents } from "../store/events.ts";
import { freeBytes } from "../store/files.ts";

/** A guest that was paused for want of room is resumed when this much is free again. */
const ROOM_TO_RESUME = 64 << 20;
/** Free room has no event to wait for. */
const LOOK_MS = 2000;

/** An error inside a running machine. */
export interface GuestError {
  kind: "panic" | "disk" | "paused" | "no-room";
  /** For people: `a disk of the guest fails: …`. */
  text: string;
}

/** @param directory where the disks are */
function parseGuestError({ event, data }: QmpEvent, directory: string): GuestError | undefined {
  if (event === "GUEST_PANICKED") return { kind: "panic", text: "the guest's kernel has panicked" };
  // qapi/block-core.json, BLOCK_IO_ERROR
  if (event !== "BLOCK_IO_ERROR" || data.action === "ignore") return undefined;
  const where = `${String(data["node-name"])}, ${String(data.operation)}`;
  if (data.action !== "stop")
    return {
      kind: "disk",
      text: `a disk of the guest fails: ${String(data.reason)} (${where}); the guest was told`,
    };
  return data.nospace === true
    ? { kind: "no-room", text: `the guest is paused: no room left for its disks in ${directory} (${where})` }
    : { kind: "paused", text: `the guest is paused: ${String(data.reason)} (${where})` };
}

/**
 * What has gone wrong in a run so far, each kind once, by its log of events: for guests that no command waits for.
 * A pause counts until the guest is resumed.
 */
export function findGuestErrors(workdir: string, events: QmpEvent[] = readEvents(workdir)): GuestError[] {
  const found = new Map<GuestError["kind"], GuestError>();
  for (const event of events) {
    if (event.event === "RESUME") {
      found.delete("paused");
      found.delete("no-room");
    }
    const error = parseGuestError(event, workdir);
    if (error) found.set(error.kind, error);
  }
  return [...found.values()];
}

/** Is there as much room as a guest needs that was paused for want of it? */
export const hasRoomToResume = (directory: string): boolean => freeBytes(directory) >= ROOM_TO_RESUME;

/** When a guest that is paused for want of room can be resumed: `64 MiB are free in DIR`. */
export const describeRoom = (directory: string): string =>
  `${formatSize(ROOM_TO_RESUME)} are free in ${directory}`;

/**
 * Tells what goes wrong inside a running machine. When the room for its disks runs out, qemu pauses the guest: it is
 * resumed when there is room.
 */
export class GuestErrorMonitor implements Disposable {
  #timer: ReturnType<typeof setInterval> | undefined;
  qmp: QmpClient | undefined;

  constructor(private readonly directory: string) {}

  onEvent(event: QmpEvent): void {
    const error = parseGuestError(event, this.directory);
    if (!error) return;
    if (error.kind !== "no-room")
      log.warn(error.kind === "paused" ? `${error.text}; Ctrl-C twice ends it` : error.text);
    if (error.kind !== "no-room" || this.#timer) return;
    log.warn(error.text);
    log.info(`  it is resumed as soon as ${describeRoom(this.directory)}`);
    this.#timer = setInterval(() => this.#resume(), LOOK_MS);
  }

  #resume(): void {
    if (!hasRoomToResume(this.directory)) return;
    this[Symbol.dispose]();
    log.info("there is room again: guest resumed");
    this.qmp?.execute("cont").catch(() => {});
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
