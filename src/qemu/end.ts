import { VmError } from "../lib/errors.ts";
import { within } from "../lib/within.ts";
import { describeHolder, type Holder } from "../process/holders.ts";
import { limitWait } from "../process/signals.ts";
import { QmpDisconnect } from "../qmp/errors.ts";

/** One attempt to terminate a qemu, and the time limit for its exit. */
export interface TerminateStep {
  by: "quit" | "SIGTERM" | "SIGKILL";
  limitMs: number;
  /** Time limit for the reply to `quit`. */
  answerMs?: number;
}

/** qemu flushes the images on `quit` and SIGTERM. */
export const TERMINATE_STEPS: readonly TerminateStep[] = [
  { by: "quit", limitMs: 10_000 },
  { by: "SIGTERM", limitMs: 10_000 },
  { by: "SIGKILL", limitMs: 10_000 },
];

/** For a qemu whose disks are discarded. */
export const KILL_ONLY: readonly TerminateStep[] = TERMINATE_STEPS.slice(-1);

/** For a qemu that writes bitmaps to its images on exit. */
export const FLUSH_STEPS: readonly TerminateStep[] = [
  { by: "quit", limitMs: 300_000 },
  ...TERMINATE_STEPS.slice(1),
];

const ANSWER_MS = 3000;

/** Operations on the qemu to terminate. */
export interface QemuHandle {
  /** Sends `quit` by QMP. @throws if qemu does not reply */
  quit(): Promise<unknown>;
  signal(name: "SIGTERM" | "SIGKILL"): void;
  /** Waits for its exit. @returns false after `limitMs` */
  isGone(limitMs: number): Promise<boolean>;
}

/**
 * Terminates a qemu: tries each step until it has exited.
 * @returns false if it still runs after the last step
 */
export async function terminateQemu(
  qemu: QemuHandle,
  steps: readonly TerminateStep[] = TERMINATE_STEPS,
): Promise<boolean> {
  for (const { by, limitMs, answerMs = ANSWER_MS } of steps) {
    if (by !== "quit") qemu.signal(by);
    else if (!(await tryQuit(qemu, answerMs))) continue;
    if (await qemu.isGone(limitMs)) return true;
  }
  return false;
}

/** @returns false if qemu does not reply: another client is connected to its monitor, or it hangs */
async function tryQuit(qemu: QemuHandle, limitMs: number): Promise<boolean> {
  try {
    await within(qemu.quit(), limitMs, () => new Error("no reply to quit"));
    return true;
  } catch (error) {
    // It is exiting.
    return error instanceof QmpDisconnect;
  }
}

/** Waits for the exit of a child process. A stop signal shortens the limit. */
export async function waitForExit(
  ended: Promise<unknown>,
  limitMs: number,
  hurryMs?: number,
): Promise<boolean> {
  const limit = Promise.withResolvers<false>();
  using _limit = limitWait(limitMs, () => limit.resolve(false), hurryMs);
  return await Promise.race([ended.then(() => true), limit.promise]);
}

/** @param qemu undefined if its process is not accessible */
export function stillRunningError(qemu: Holder | undefined): VmError {
  if (!qemu)
    return new VmError(
      "io",
      "cannot kill qemu: no reply from its monitor, and its process is not accessible",
      {
        hint: "run the command again as root, or as the user who started the VM",
      },
    );
  return new VmError("io", `cannot kill ${describeHolder(qemu)}: it still runs after SIGKILL`, {
    hint: `show what it waits for: ps -o pid,user,stat,wchan:20 -p ${qemu.pid}`,
  });
}
