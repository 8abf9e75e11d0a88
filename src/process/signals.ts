import { SignalError } from "../lib/errors.ts";

/** Numbers of the stop signals, equal on all architectures (signal(7)); loading node:os takes as long as a command line. */
const SIGNAL_NUMBERS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;
export type StopSignal = keyof typeof SIGNAL_NUMBERS;
const STOP_SIGNALS = Object.keys(SIGNAL_NUMBERS) as StopSignal[];

let received: StopSignal | undefined;
const controller = new AbortController();
const handlers: ((signal: StopSignal) => void)[] = [];

/** Aborted by the first SIGINT, SIGTERM or SIGHUP without a handler (`takeSignals`). */
export const interruption: AbortSignal = controller.signal;

/** Called once, by `main`, before the first command. */
export function installSignalHandlers(): void {
  for (const name of STOP_SIGNALS) {
    process.on(name, () => {
      received ??= name;
      const handler = handlers.at(-1);
      if (handler) handler(name);
      else controller.abort(signalError(name));
    });
  }
  // A closed pipe (`vm … | head`) must not kill the program halfway through a change.
  process.on("SIGPIPE", () => {});
}

/** Until disposal, stop signals call `take` and do not abort `interruption`. */
export function takeSignals(take: (signal: StopSignal) => void): Disposable {
  handlers.push(take);
  return { [Symbol.dispose]: () => void handlers.splice(handlers.indexOf(take), 1) };
}

export function signalError(name: StopSignal, message?: string): SignalError {
  return new SignalError(name, SIGNAL_NUMBERS[name], message);
}

/** The first stop signal received, handled or not. */
export const firstSignal = (): StopSignal | undefined => received;

/** Called between the steps of a long change. @throws SignalError after a stop signal */
export function throwIfInterrupted(): void {
  if (controller.signal.aborted) throw signalError(received ?? "SIGTERM");
}

/** Time limit for waiting for another program after a stop signal. */
export const HURRY_MS = 5000;

/** Calls `late` after `limitMs`, or `hurryMs` after a stop signal, unless disposed of before. */
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
