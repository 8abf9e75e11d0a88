import { join } from "node:path";
import { hasErrno } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { describeHolder, type Holder } from "../process/holders.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { terminateQemu, stillRunningError } from "../qemu/end.ts";
import { QmpClient } from "../qmp/client.ts";
import { WORK } from "../store/layout.ts";
import type { Workdir } from "../store/workdir.ts";
import { findQemus, findRunning } from "./in-use.ts";

/** Time limit for the QMP greeting. */
const GREETING_MS = 3000;
const POLL_MS = 50;

/** A panicked kernel does not answer a request to power off. */
export const PANICKED = "killing the guest: its kernel panicked, and cannot power off";

/**
 * Kills the VM's qemu, which another process has started.
 * @param message what is logged before; empty: nothing
 * @throws 74 if qemu still runs after all attempts
 */
export async function killMachine(work: Workdir, message = "killing the running guest"): Promise<void> {
  if ((await findRunning(work)) === undefined) return;
  if (message !== "") log.info(message);
  const gone = await terminateQemu({
    quit: () => quitByQmp(work),
    signal: (name) => {
      for (const qemu of findQemus(work)) {
        log.info(`sending ${name} to ${describeHolder(qemu)}, which did not exit`);
        sendSignal(qemu, name);
      }
    },
    isGone: (limitMs) => isGone(work, limitMs),
  });
  if (!gone) throw stillRunningError(findQemus(work)[0]);
}

async function isGone(work: Workdir, limitMs: number): Promise<boolean> {
  for (const deadline = Date.now() + limitMs; (await findRunning(work)) !== undefined;) {
    throwIfInterrupted();
    if (Date.now() > deadline) return false;
    await Bun.sleep(POLL_MS);
  }
  return true;
}

async function quitByQmp(work: Workdir): Promise<void> {
  const qmp = await QmpClient.connect(join(work.dir, WORK.qmp), GREETING_MS);
  try {
    await qmp.execute("quit");
  } finally {
    qmp.close();
  }
}

export function sendSignal({ pid }: Holder, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // It has exited, or belongs to another user: the caller checks again.
    if (!hasErrno(error, "ESRCH", "EPERM")) throw error;
  }
}
