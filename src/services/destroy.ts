import { statSync } from "node:fs";
import { join } from "node:path";
import { log } from "../lib/log.ts";
import { formatTimestamp } from "../lib/time.ts";
import { QmpClient } from "../qmp/client.ts";
import { isListening, quit } from "../qmp/commands.ts";
import { fileError } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import { removeWork } from "../store/stage.ts";
import type { Context } from "./context.ts";
import { findImageHolder, findRunning, ownDisks, refuseRunning, withVm, type Present } from "./open.ts";
import { findSnapshot, listSnapshots } from "./snapshots.ts";

/** Removes the working files; snapshots and HOSTDIR's own files stay. `force` ends a running guest first. */
export async function destroyVm(context: Context, force: boolean): Promise<void> {
  await withVm(context, "destroy", async ({ hostdir, work }) => {
    if (work.state === "none") {
      log.info(`the VM in ${hostdir} has no working files: nothing to destroy`);
      return;
    }
    if (work.state === "present") {
      if (force) await endMachine(work);
      await refuseRunning(work, "destroy", ", or use 'destroy --force'");
      warnIfNewer(hostdir, work);
    }
    try {
      removeWork(hostdir, work);
    } catch (error) {
      throw fileError("cannot destroy the working files", error);
    }
    log.success(
      work.state === "gone"
        ? `removed the link to ${work.target}`
        : `destroyed the working files in ${work.dir}`,
    );
  });
}

/** How long an ended qemu may take to flush its images and go. */
const END_WAIT_MS = 10_000;

/** Ends qemu by QMP and waits until it has let go of its files. */
async function endMachine(work: Present): Promise<void> {
  if ((await findRunning(work)) === undefined) return;
  log.info("ending the running guest");
  const socket = join(work.dir, WORK.qmp);
  if (await isListening(socket)) {
    const qmp = await QmpClient.connect(socket);
    await quit(qmp);
    await qmp.closed;
  } else {
    // Its sockets are gone: SIGTERM makes qemu flush its images, too.
    const holders = ownDisks(work.dir).map((name) => findImageHolder(join(work.dir, name)));
    const qemu = holders.find((holder) => holder?.name.startsWith("qemu-system"));
    if (qemu) process.kill(qemu.pid, "SIGTERM");
  }
  const deadline = Date.now() + END_WAIT_MS;
  while ((await findRunning(work)) !== undefined && Date.now() < deadline) await Bun.sleep(50);
}

/** What is newer than the last snapshot is about to be lost. */
function warnIfNewer(hostdir: string, work: Present): void {
  const changed = Math.max(0, ...ownDisks(work.dir).map((name) => statSync(join(work.dir, name)).mtimeMs));
  if (work.mark.lastRun === undefined) return;
  if (listSnapshots(hostdir).length === 0) {
    log.warn("this VM has no snapshot: its disks are lost now");
    return;
  }
  const { name, made } = findSnapshot(hostdir, undefined);
  if (changed > made.getTime())
    log.warn(
      `the disks were changed (${formatTimestamp(new Date(changed))}) after the last snapshot ${name}: that is lost now`,
    );
}
