import { log } from "../lib/log.ts";
import { firstSignal, takeSignals } from "../process/signals.ts";
import type { QemuSession } from "../qemu/session.ts";
import type { Workdir } from "../store/workdir.ts";
import { PANICKED } from "../vm/kill-machine.ts";
import type { StopCause } from "../vm/record-exit.ts";
import { REQUEST_INTERVAL_MS, requestPowerOff } from "./power-off.ts";

/**
 * Waits until qemu exits. The first stop signal, or the time limit of the run, requests the guest to power off,
 * repeatedly; a second signal, or STOP_TIMEOUT, kills qemu. So does the first one after a panic: no request reaches that
 * guest.
 * @returns why this program ended the run, if it did
 * @throws 74 if qemu cannot be killed
 */
export async function waitUntilOff(
  machine: QemuSession,
  work: Workdir,
  stopTimeoutSeconds: number,
  limitSeconds: number | undefined,
): Promise<StopCause | undefined> {
  let cause: StopCause | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let repeated: ReturnType<typeof setInterval> | undefined;
  const request = (again: boolean): void =>
    void requestPowerOff(machine.qmp, work.dir, again).catch(() => {});
  const failed = Promise.withResolvers<never>();
  const kill = (killed: string): void => {
    cause = { ...cause!, killed };
    void machine.end().catch(failed.reject);
  };
  const stop = (why: StopCause): void => {
    clearTimeout(timer);
    const again = cause !== undefined;
    cause ??= why;
    if (again || machine.panicked) {
      log.info(machine.panicked ? PANICKED : "killing the guest");
      kill(again ? "a second signal" : "its kernel panicked");
      return;
    }
    const reached = "limitSeconds" in why ? `time limit of ${why.limitSeconds} seconds reached: ` : "";
    const repeat = "limitSeconds" in why ? "Ctrl-C kills it" : "repeat to kill it";
    log.info(
      `${reached}requested the guest to power off; ${repeat}, as after ${stopTimeoutSeconds} seconds (STOP_TIMEOUT)`,
    );
    request(false);
    repeated = setInterval(() => request(true), REQUEST_INTERVAL_MS);
    timer = setTimeout(
      () => kill(`it did not power off within ${stopTimeoutSeconds} s (STOP_TIMEOUT)`),
      stopTimeoutSeconds * 1000,
    );
  };
  using _taken = takeSignals((signal) => stop({ signal }));
  // Received while qemu was being started: the guest has no unsaved data.
  const early = firstSignal();
  if (early) {
    cause = { signal: early };
    kill("it had only been started");
  } else if (limitSeconds !== undefined)
    timer = setTimeout(() => stop({ limitSeconds }), limitSeconds * 1000);
  try {
    await Promise.race([machine.ended, failed.promise]);
  } finally {
    clearTimeout(timer);
    clearInterval(repeated);
  }
  return cause;
}
