/** What systemd runs when a VM is to be off, and when its qemu has exited. */
import { join } from "node:path";
import { readSmall } from "../../lib/read-file.ts";
import { watchDirectory } from "../../process/watch-directory.ts";
import { isExitUnrecorded, readMark } from "../../store/mark.ts";
import { remove } from "../../store/remove.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Context } from "../../vm/context.ts";
import { describeEnd, inferEnd } from "../../vm/exit-reason.ts";
import { openVm } from "../../vm/find.ts";
import { findQemus, findRunning } from "../../vm/in-use.ts";
import { withVm } from "../../vm/open.ts";
import { notPoweredOff } from "../../vm/record-exit.ts";
import { stopVm } from "../stop.ts";
import { PID_FILE } from "./start.ts";

/** Another command that has killed qemu records why. */
const RECORD_MS = 2000;
/** Time limit for the VM's lock: that command may hold it. */
const LOCK_MS = 60_000;

/**
 * Shuts the guest down, if the qemu that this unit has started still runs; otherwise its status says how the run ended, by
 * which systemd decides on a restart.
 * @throws 74 if qemu crashed or was killed, unless by a command of this program; as `stopVm`
 */
export async function stopForManager(context: Context, timeoutSeconds: number | undefined): Promise<void> {
  const directory = context.env.RUNTIME_DIRECTORY;
  const pidFile = directory ? join(directory, PID_FILE) : undefined;
  const pid = pidFile === undefined ? undefined : readPid(pidFile);
  // Called once more after a complete stop, or after a start that failed.
  if (pidFile !== undefined && pid === undefined) return;
  try {
    const { work } = await openVm(context);
    if (work.state !== "present") return;
    const isOwn = pid === undefined || findQemus(work).some((qemu) => qemu.pid === pid);
    if (isOwn) await stopVm(context, { timeoutSeconds, force: false });
    else await requireNoCrash(context, work);
  } finally {
    if (pidFile !== undefined) remove(pidFile);
  }
}

function readPid(path: string): number | undefined {
  const text = readSmall(path)?.trim() ?? "";
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}

/** @throws 74 */
async function requireNoCrash(context: Context, found: Workdir): Promise<void> {
  await waitForRecord(found);
  const record = await withVm(
    context,
    "record the exit reason",
    async ({ work }) => {
      // Started again by hand, or destroyed.
      if (work.state !== "present" || (await findRunning(work)) !== undefined) return undefined;
      return { end: work.mark.lastRun, how: work.mark.run?.how };
    },
    { lenient: true, waitMs: LOCK_MS },
  );
  const { end, how } = record ?? {};
  if (end === "killed" || end === "crashed" || end === "unknown")
    throw notPoweredOff(how ?? describeEnd(end));
}

/** qemu was killed, by whomever: gives `stop --force` the time to record that it was this. */
async function waitForRecord({ dir, mark }: Workdir): Promise<void> {
  if (!mark.run || !isExitUnrecorded(mark) || !inferEnd(dir, mark.run).guessed) return;
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, RECORD_MS);
  using _watch = watchDirectory(dir, { everyMs: RECORD_MS }, () => {
    const now = readMark(dir);
    if (!now || !isExitUnrecorded(now)) over.resolve();
  });
  await over.promise;
  clearTimeout(timer);
}
