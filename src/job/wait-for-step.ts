import { interruption, throwIfInterrupted } from "../process/signals.ts";
import type { QemuSession } from "../qemu/session.ts";

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
