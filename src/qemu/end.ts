import { VmError } from "../lib/errors.ts";
import { within } from "../lib/within.ts";
import { describeHolder, type Holder } from "../process/holders.ts";
import { limitWait } from "../process/signals.ts";
import { QmpDisconnect } from "../qmp/errors.ts";

/** One attempt to end a qemu, and how long it may take then until it is gone. */
export interface Rung {
  by: "quit" | "SIGTERM" | "SIGKILL";
  limitMs: number;
  /** How long qemu's monitor may take to answer `quit`. */
  answerMs?: number;
}

/** The first two flush the images. */
export const LADDER: readonly Rung[] = [
  { by: "quit", limitMs: 10_000 },
  { by: "SIGTERM", limitMs: 10_000 },
  { by: "SIGKILL", limitMs: 10_000 },
];

/** For a qemu whose disks are thrown away. */
export const KILL: readonly Rung[] = LADDER.slice(-1);

/** For a qemu that writes bitmaps into its images when it closes them. */
export const PATIENT: readonly Rung[] = [{ by: "quit", limitMs: 300_000 }, ...LADDER.slice(1)];

const ANSWER_MS = 3000;

/** A qemu to be ended. */
export interface EndingQemu {
  /** Sends `quit` by QMP. @throws when qemu does not answer */
  quit(): Promise<unknown>;
  signal(name: "SIGTERM" | "SIGKILL"): void;
  /** Waits until it has gone. @returns false when it has not after `limitMs` */
  isGone(limitMs: number): Promise<boolean>;
}

/**
 * Ends a qemu: tries one rung after the other until it has gone.
 * @returns false when it still runs after all of them
 */
export async function endQemu(qemu: EndingQemu, ladder: readonly Rung[] = LADDER): Promise<boolean> {
  for (const { by, limitMs, answerMs = ANSWER_MS } of ladder) {
    if (by !== "quit") qemu.signal(by);
    else if (!(await answersQuit(qemu, answerMs))) continue;
    if (await qemu.isGone(limitMs)) return true;
  }
  return false;
}

/** @returns false when qemu does not answer: another client has its monitor, or it hangs */
async function answersQuit(qemu: EndingQemu, limitMs: number): Promise<boolean> {
  try {
    await within(qemu.quit(), limitMs, () => new Error("no answer to quit"));
    return true;
  } catch (error) {
    // It is going already.
    return error instanceof QmpDisconnect;
  }
}

/** Waits for the exit of a child process, with a limit that a stop signal shortens. */
export async function hasEnded(ended: Promise<unknown>, limitMs: number, hurryMs?: number): Promise<boolean> {
  const limit = Promise.withResolvers<false>();
  using _limit = limitWait(limitMs, () => limit.resolve(false), hurryMs);
  return await Promise.race([ended.then(() => true), limit.promise]);
}

/** @param qemu undefined when its process cannot be seen */
export function stillRuns(qemu: Holder | undefined): VmError {
  if (!qemu)
    return new VmError("io", "cannot end qemu: it does not answer, and its process cannot be seen", {
      hint: "run the command again as root, or as the user who started the VM",
    });
  return new VmError("io", `cannot end ${describeHolder(qemu)}: it still runs after SIGKILL`, {
    hint: `see what it waits for: ps -o pid,user,stat,wchan:20 -p ${qemu.pid}`,
  });
}
