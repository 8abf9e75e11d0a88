import { statSync } from "node:fs";
import { join } from "node:path";
import { log } from "../lib/log.ts";
import { formatTimestamp } from "../lib/time.ts";
import { QmpClient } from "../qmp/client.ts";
import { isListening, quit } from "../qmp/commands.ts";
import { fileError } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import { removeWork } from "../store/working-files.ts";
import type { Context } from "./context.ts";
import {
  findImageHolder,
  findRunning,
  openVm,
  ownDisks,
  refuseRunning,
  withVm,
  type Present,
} from "./open.ts";
import { findSnapshot, listSnapshots } from "./snapshots.ts";

/** Removes the working files; snapshots and HOSTDIR's own files stay. `force` ends a running guest first. */
export async function destroyVm(context: Context, force: boolean): Promise<void> {
  // A job holds the VM as long as its rescue runs.
  if (force) await endJob(context);
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

async function endJob(context: Context): Promise<void> {
  try {
    const { work } = await openVm(context);
    if (work.state === "present") await endMachine(work);
  } catch {
    // Whatever is wrong with this VM is told, or mended, under its lock.
  }
}

/** How long an ended qemu may take to flush its images and go. */
const END_WAIT_MS = 10_000;

const RETRY_MS = 50;

/** Ends qemu and waits until it has let go of its files. */
async function endMachine(work: Present): Promise<void> {
  const deadline = Date.now() + END_WAIT_MS;
  for (let first = true; (await findRunning(work)) !== undefined; first = false) {
    if (first) log.info("ending the running guest");
    if (Date.now() > deadline) return;
    if (!(await quitByQmp(work))) killHolder(work);
    await Bun.sleep(RETRY_MS);
  }
}

/** False when nobody answers there, or not yet: the queue for qemu's one conversation is short. */
async function quitByQmp(work: Present): Promise<boolean> {
  const socket = join(work.dir, WORK.qmp);
  try {
    const qmp = await QmpClient.connect(socket);
    await quit(qmp);
    await qmp.closed;
    return true;
  } catch {
    return isListening(socket);
  }
}

/** Where the sockets are gone: SIGTERM makes qemu flush its images, too. */
function killHolder(work: Present): void {
  const holders = ownDisks(work.dir).map((name) => findImageHolder(join(work.dir, name)));
  const qemu = holders.find((holder) => holder?.name.startsWith("qemu-system"));
  if (qemu) process.kill(qemu.pid, "SIGTERM");
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
