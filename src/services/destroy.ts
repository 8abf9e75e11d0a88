import { lstatSync } from "node:fs";
import { join } from "node:path";
import { log } from "../lib/log.ts";
import { formatTimestamp } from "../lib/time.ts";
import { fileError } from "../store/files.ts";
import { removeWork } from "../store/working-files.ts";
import type { Context } from "./context.ts";
import { endMachine, ownDisks, refuseRunning } from "./in-use.ts";
import { findHostdir, openVm, requireOwn, withVm, type Present, type Vm } from "./open.ts";
import { findSnapshot, listSnapshots } from "./snapshots.ts";

/** Removes the working files; snapshots and HOSTDIR's own files stay. `force` ends a running guest first. */
export async function destroyVm(context: Context, force: boolean): Promise<void> {
  requireOwn(context, findHostdir(context), "destroy");
  // A job holds the VM as long as its rescue runs.
  if (force) await endJob(context);
  const destroy = async ({ hostdir, work }: Vm): Promise<void> => {
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
        ? `removed the link to ${work.target}${work.remains ? ", and what was left there" : ""}`
        : `destroyed the working files in ${work.dir}`,
    );
  };
  await withVm(context, "destroy", destroy, { lenient: true });
}

async function endJob(context: Context): Promise<void> {
  try {
    const { work } = await openVm(context);
    if (work.state === "present") await endMachine(work);
  } catch {
    // Whatever is wrong with this VM is told, or mended, under its lock.
  }
}

/** What is newer than the last snapshot is about to be lost. */
function warnIfNewer(hostdir: string, work: Present): void {
  const changed = Math.max(0, ...ownDisks(work.dir).map((name) => lstatSync(join(work.dir, name)).mtimeMs));
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
