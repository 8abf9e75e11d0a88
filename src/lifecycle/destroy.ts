import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { reasonOf } from "../lib/errors.ts";
import { log, snapshotName } from "../lib/log.ts";
import { formatTimestamp } from "../lib/time.ts";
import { lstatOf } from "../lib/read-file.ts";
import { fileError } from "../store/files.ts";
import { removeWork } from "../store/working-files.ts";
import type { Context } from "../vm/context.ts";
import { killMachine } from "../vm/kill-machine.ts";
import { refuseRunning } from "../vm/in-use.ts";
import { isSuspended } from "../store/is-suspended.ts";
import { ownDisks } from "../store/own-disks.ts";
import { findHostdir, openVm, type Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";
import { type Workdir } from "../store/workdir.ts";
import { hasVm } from "../store/no-vm.ts";
import { requireOwn } from "../vm/ownership.ts";
import { lastName, listSnapshots, type Snapshot } from "../store/snapshots.ts";

/** Removes the working files; snapshots and HOSTDIR's other files are kept. `force` kills a running guest first. */
export async function destroyVm(context: Context, force: boolean): Promise<void> {
  requireOwn(context, findHostdir(context), "destroy");
  // A job holds the VM's lock while its rescue runs.
  if (force) await killJob(context);
  const destroy = async (vm: Vm): Promise<void> => {
    const { hostdir, work } = vm;
    if (work.state === "none") {
      const what = hasVm(hostdir)
        ? `the VM in ${hostdir} has no working files`
        : `there is no VM in ${hostdir}`;
      log.info(`${what}: nothing to destroy`);
      return;
    }
    if (work.state === "present") {
      if (force) await killMachine(work);
      await refuseRunning(work, "destroy", `\nor kill it: ${commandLine("destroy", "--force")}`);
      if (isSuspended(work.dir)) log.warn("the VM is suspended: its RAM is lost");
      warnIfNewer(hostdir, work);
    }
    try {
      // Before the disks are removed: the symlink to them is there.
      accessSync(hostdir, constants.W_OK);
      if (work.state === "present" && work.mark.arriving)
        await (await import("../vm/arriving.ts")).endKeeper(hostdir);
      removeWork(hostdir, work);
    } catch (error) {
      throw fileError("cannot destroy the working files", error);
    }
    if (work.state === "present" && work.mark.clone?.base)
      await (await import("../vm/clones.ts")).forgetAtSource(vm);
    if ((await import("../vm/autostart.ts")).findAutostart(context, hostdir))
      log.warn(`the VM is still started with the host; turn that off: ${commandLine("autostart", "off")}`);
    log.success(
      work.state === "gone"
        ? `removed the symlink to ${work.target}${work.remains ? ", and the remaining files there" : ""}`
        : `destroyed the working files in ${work.dir}`,
    );
  };
  await withVm(context, "destroy", destroy, { lenient: true });
}

async function killJob(context: Context): Promise<void> {
  try {
    const { work } = await openVm(context);
    if (work.state === "present") await killMachine(work);
  } catch {
    // Problems of this VM are reported, or repaired, under its lock.
  }
}

/** Warns if data newer than the last snapshot is about to be lost. */
function warnIfNewer(hostdir: string, work: Workdir): void {
  if (work.mark.arriving)
    return log.warn(
      `the disks are not complete, and come from ${snapshotName(work.mark.arriving.name)} in the repository, which stays: what the guest has written since is lost`,
    );
  const disks = ownDisks(work.dir);
  const times = disks.map((name) => lstatOf(join(work.dir, name))?.mtimeMs ?? 0);
  const changed = Math.max(0, ...times);
  let all: Snapshot[];
  try {
    all = listSnapshots(hostdir);
  } catch (error) {
    // The working files are removed even if snapshots cannot be listed.
    return log.warn(reasonOf(error));
  }
  const last = all.find(({ name }) => name === lastName(hostdir)) ?? all.at(-1);
  if (!last) {
    if (disks.length > 0) log.warn("this VM has no snapshot: removing the only copy of its disks");
    return;
  }
  // Neither run nor changed by a job since the restore: the snapshot has the same data.
  if (work.mark.lastRun === undefined && !work.mark.onlyJobs) return;
  if (changed > last.made.getTime())
    log.warn(
      `the disks were changed (${formatTimestamp(new Date(changed))}) after the last snapshot ${last.name}: these changes are lost`,
    );
}
