import { constants } from "node:os";
import { SignalError } from "../lib/errors.ts";

export type StopSignal = "SIGINT" | "SIGTERM" | "SIGHUP";
const STOP_SIGNALS: readonly StopSignal[] = ["SIGINT", "SIGTERM", "SIGHUP"];

let received: StopSignal | undefined;
const controller = new AbortController();
const takers: ((signal: StopSignal) => void)[] = [];

/** Aborted by the first SIGINT, SIGTERM or SIGHUP that nobody has taken over. */
export const interruption: AbortSignal = controller.signal;

/** Installs the handlers; called once, by `main`, before the first command. */
export function installSignalHandlers(): void {
  for (const name of STOP_SIGNALS) {
    process.on(name, () => {
      received ??= name;
      const taker = takers.at(-1);
      if (taker) taker(name);
      else controller.abort(signalError(name));
    });
  }
  // A reader that goes away (`vm … | head`) must not end the program halfway through a change.
  process.on("SIGPIPE", () => {});
}

/** While the returned object lives, stop signals go to `take` instead of aborting the work. */
export function takeSignals(take: (signal: StopSignal) => void): Disposable {
  takers.push(take);
  return { [Symbol.dispose]: () => void takers.splice(takers.indexOf(take), 1) };
}

export function signalError(name: StopSignal, message?: string): SignalError {
  return new SignalError(name, constants.signals[name], message);
}

/** The first stop signal that came in, whoever took it. */
export const firstSignal = (): StopSignal | undefined => received;

/** Throws when a stop signal came in; called between the steps of a long change. */
export function throwIfInterrupted(): void {
  if (controller.signal.aborted) throw signalError(received ?? "SIGTERM");
}

/** How long what must yet be done may wait for another program after a stop signal. */
export const HURRY_MS = 5000;

/** Calls `late` after `limitMs`, and after a stop signal no later than `hurryMs`, unless it is disposed of before. */
export function limitWait(limitMs: number, late: () => void, hurryMs = HURRY_MS): Disposable {
  let timer = setTimeout(late, limitMs);
  const hurry = (): void => {
    clearTimeout(timer);
    timer = setTimeout(late, Math.min(limitMs, hurryMs));
  };
  interruption.addEventListener("abort", hurry);
  if (interruption.aborted) hurry();
  return {
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      interruption.removeEventListener("abort", hurry);
    },
  };
}
