import { interruption, throwIfInterrupted } from "../process/signals.ts";
import type { QemuSession } from "../qemu/session.ts";
import type { QmpEvent } from "../qmp/events.ts";

/** Of a state, which has the RAM in a file of its own (qapi/migration.json, x-ignore-shared). */
export const MIGRATION = {
  capabilities: {
    capabilities: [
      { capability: "events", state: true },
      { capability: "x-ignore-shared", state: true },
    ],
  },
  limitMs: 60_000,
} as const;

/** A migration's end, by its events. */
export class Migration {
  readonly #end = Promise.withResolvers<void>();
  /** @throws if it fails */
  readonly completed: Promise<void> = this.#end.promise;

  constructor() {
    this.completed.catch(() => {});
  }

  readonly onEvent = ({ event, data }: QmpEvent): void => {
    if (event !== "MIGRATION") return;
    if (data.status === "completed") this.#end.resolve();
    if (data.status === "failed") this.#end.reject(new Error("the migration has failed"));
  };
}

/** Waits for a step, at most `ms` if given. @throws on timeout, on a stop signal, or if qemu exits first */
export async function waitForStep(
  ms: number | undefined,
  machine: QemuSession,
  step: Promise<void>,
): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = ms && setTimeout(() => late.reject(new Error("timed out")), ms);
  const stop = (): void => late.reject(interruption.reason);
  interruption.addEventListener("abort", stop, { once: true });
  const exited = machine.ended.then(() => {
    throw new Error("qemu exited");
  });
  try {
    await Promise.race([step, late.promise, exited]);
    throwIfInterrupted();
  } finally {
    clearTimeout(timer);
    interruption.removeEventListener("abort", stop);
    exited.catch(() => {});
  }
}
