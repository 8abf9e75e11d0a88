import { interruption, throwIfInterrupted } from "../process/signals.ts";

/** A step was not completed in time. */
export class StepTimeout extends Error {
  constructor(ms: number) {
    super(`not completed within ${ms / 1000} s`);
  }
}

/**
 * Waits for a step of a running qemu, at most `ms` if given.
 * @param exited settles when qemu has exited
 * @throws StepTimeout on timeout; else on a stop signal, or if qemu exits first
 */
export async function waitForStep(
  ms: number | undefined,
  exited: Promise<unknown>,
  step: Promise<void>,
): Promise<void> {
  const failed = Promise.withResolvers<never>();
  const timer = ms && setTimeout(() => failed.reject(new StepTimeout(ms)), ms);
  const stop = (): void => failed.reject(interruption.reason);
  interruption.addEventListener("abort", stop, { once: true });
  void exited.finally(() => failed.reject(new Error("qemu exited"))).catch(() => {});
  try {
    throwIfInterrupted();
    await Promise.race([step, failed.promise]);
    throwIfInterrupted();
  } finally {
    clearTimeout(timer);
    interruption.removeEventListener("abort", stop);
    failed.promise.catch(() => {});
  }
}
