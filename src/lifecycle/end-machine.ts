import { join } from "node:path";
import { hasErrno, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { describeHolder, type Holder } from "../process/holders.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { QmpClient } from "../qmp/client.ts";
import { quit } from "../qmp/commands.ts";
import { WORK } from "../store/layout.ts";
import type { Present } from "../store/workdir.ts";
import { findQemus, findRunning } from "../vm/in-use.ts";

/** How long qemu's monitor may take to greet and to answer `quit`. */
const ANSWER_MS = 3000;
/** How long qemu may take to flush its images after `quit` or SIGTERM, and the kernel to end it after SIGKILL. */
const STEP_MS = 10_000;
const LOOK_MS = 50;

/**
 * Ends the VM's qemu: `quit`, then SIGTERM, then SIGKILL, each until the files are free. The first two flush the images.
 * @throws 74 when qemu still runs after all of them
 */
export async function endMachine(work: Present): Promise<void> {
  if ((await findRunning(work)) === undefined) return;
  log.info("ending the running guest");
  if ((await quitByQmp(work)) && (await isGone(work))) return;
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    for (const qemu of findQemus(work)) {
      log.info(`sending ${signal} to ${describeHolder(qemu)}, which did not end`);
      sendSignal(qemu, signal);
    }
    if (await isGone(work)) return;
  }
  throw stillRuns(findQemus(work));
}

async function isGone(work: Present): Promise<boolean> {
  for (const deadline = Date.now() + STEP_MS; (await findRunning(work)) !== undefined;) {
    throwIfInterrupted();
    if (Date.now() > deadline) return false;
    await Bun.sleep(LOOK_MS);
  }
  return true;
}

/** @returns false when qemu does not answer: another client holds its monitor, or it hangs */
async function quitByQmp(work: Present): Promise<boolean> {
  let qmp: QmpClient;
  try {
    qmp = await QmpClient.connect(join(work.dir, WORK.qmp), ANSWER_MS);
  } catch {
    return false;
  }
  const answered = quit(qmp).then(() => true);
  const late = Promise.withResolvers<false>();
  const timer = setTimeout(() => late.resolve(false), ANSWER_MS);
  try {
    return await Promise.race([answered, late.promise]);
  } finally {
    clearTimeout(timer);
    qmp.close();
  }
}

function sendSignal({ pid }: Holder, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // It has ended meanwhile, or is another user's: looking at it again tells.
    if (!hasErrno(error, "ESRCH", "EPERM")) throw error;
  }
}

function stillRuns(qemus: Holder[]): VmError {
  const [first] = qemus;
  if (!first)
    return new VmError("io", "cannot end qemu: it does not answer, and its process cannot be seen", {
      hint: "run the command again as root, or as the user who started the VM",
    });
  return new VmError("io", `cannot end ${describeHolder(first)}: it still runs after SIGKILL`, {
    hint: `see what it waits for: ps -o pid,user,stat,wchan:20 -p ${first.pid}`,
  });
}
