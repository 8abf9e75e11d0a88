import { basename } from "node:path";
import { commandLineFor } from "../lib/command-line.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log, warnOnce } from "../lib/log.ts";
import { lockVm } from "../store/lock.ts";
import { readMark, updateMark } from "../store/mark.ts";
import { notePlace } from "../store/places.ts";
import { endRenaming, readRenaming } from "../store/renaming.ts";
import { forgetRunning } from "../store/running.ts";
import { resolveWork } from "../store/workdir.ts";
import { linkBase } from "../store/working-files.ts";
import { inspectClones, keepRecorded } from "./clones.ts";
import type { Context } from "./context.ts";
import type { Vm } from "./find.ts";
import { storeSettings } from "./store-settings.ts";

/** After a kill, completes what is on this host's disks; timers and the repository need the command itself. */
export async function recoverRenaming(context: Context, vm: Vm): Promise<void> {
  const { hostdir } = vm;
  const renaming = readRenaming(hostdir);
  if (!renaming || renaming.from === hostdir) return endRenaming(hostdir);
  await followRename(context, vm, renaming.from);
  if (context.batch?.at(-1) === "rename") return;
  warnOnce(
    `the rename from ${renaming.from} was interrupted: timers and the repository may still have the old name; complete it: ${commandLineFor(hostdir, "rename", basename(hostdir))}`,
  );
}

/**
 * Has everything on this host's disks follow a VM whose directory has been renamed: its name, its record, and linked
 * clones. Can be interrupted and repeated. Called under the VM's lock.
 * @param from HOSTDIR before; undefined if only the rest is to be repeated
 * @returns whether all is done
 */
export async function followRename(context: Context, vm: Vm, from: string | undefined): Promise<boolean> {
  const { hostdir, settings } = vm;
  const name = basename(hostdir);
  if (settings.GUESTNAME !== name) storeSettings(vm, "rename", { GUESTNAME: name });
  if (settings.UUID !== "") notePlace(context.cacheDirectory, settings.UUID, hostdir);
  if (from !== undefined) forgetRunning(context.cacheDirectory, from);
  await keepRecorded(vm);
  return rebaseClones(vm);
}

/** Has the disks of all linked clones find their backing files in the VM's directory. @returns whether all do */
export async function rebaseClones(vm: Vm): Promise<boolean> {
  let done = true;
  for (const { directory, state } of inspectClones(vm.hostdir))
    if (state === "linked") done = (await rebaseClone(directory, vm)) && done;
  return done;
}

/** Has the disks of a linked clone, which may be running, find their backing files in the VM's directory. */
async function rebaseClone(directory: string, { hostdir, settings }: Vm): Promise<boolean> {
  try {
    using _lock = await lockVm(directory, "rename the VM that it was cloned from");
    const work = resolveWork(directory);
    const clone = work.state === "present" ? readMark(work.dir)?.clone : undefined;
    if (work.state !== "present" || !clone?.base || clone.directory === hostdir) return true;
    const own = [settings.UUID, ...settings.UUID_FORMER];
    if (clone.uuid !== undefined && !own.includes(clone.uuid)) return true;
    const moved = { ...clone, directory: hostdir };
    linkBase(work.dir, { clone: moved });
    updateMark(work.dir, { clone: moved });
    return true;
  } catch (error) {
    if (!(error instanceof VmError) && !(error instanceof Error && "errno" in error)) throw error;
    log.warn(`the linked clone ${directory} does not find its base: ${reasonOf(error)}`);
    return false;
  }
}
