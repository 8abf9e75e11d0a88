import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { QmpEvent } from "../qmp/protocol.ts";
import { freeBytes } from "../store/files.ts";

/** A guest that was paused for want of room goes on when this much is free again. */
const ROOM_TO_GO_ON = 64 << 20;
/** Free room has no event to wait for. */
const LOOK_MS = 2000;

/**
 * Tells what goes wrong inside a running machine. When the room for its disks runs out, qemu pauses the
 * guest and nobody would know why it stands still: this says so, and lets it go on when there is room.
 */
export class TroubleWatch implements Disposable {
  #timer: ReturnType<typeof setInterval> | undefined;
  qmp: QmpClient | undefined;

  constructor(private readonly directory: string) {}

  hear({ event, data }: QmpEvent): void {
    if (event === "GUEST_PANICKED") log.warn("the guest's kernel has panicked");
    if (event !== "BLOCK_IO_ERROR" || data.action === "ignore") return;
    const where = `${String(data["node-name"])}, ${String(data.operation)}`;
    if (data.action !== "stop") {
      log.warn(`a disk of the guest fails: ${String(data.reason)} (${where}); the guest was told`);
    } else if (data.nospace !== true) {
      log.warn(`the guest is paused: ${String(data.reason)} (${where}); Ctrl-C twice ends it`);
    } else if (!this.#timer) {
      log.warn(`the guest is paused: no room left for its disks in ${this.directory} (${where})`);
      log.info(`  it goes on by itself as soon as ${formatSize(ROOM_TO_GO_ON)} are free there`);
      this.#timer = setInterval(() => this.#goOn(), LOOK_MS);
    }
  }

  #goOn(): void {
    if (freeBytes(this.directory) < ROOM_TO_GO_ON) return;
    this[Symbol.dispose]();
    log.info("there is room again: the guest goes on");
    this.qmp?.execute("cont").catch(() => {});
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
