import { join } from "node:path";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { isListening } from "../process/unix-socket.ts";
import { lstatOf } from "../lib/read-file.ts";
import { lockVm } from "../store/lock.ts";
import { remove } from "../store/remove.ts";
import { fileError, listDirectory } from "../store/files.ts";
import { HOST, PARTIAL, WORK } from "../store/layout.ts";
import { isExitUnrecorded } from "../store/mark.ts";
import { recoverWork } from "../store/recover.ts";
import { hasSuspendedTraces } from "../store/suspended.ts";
import { parentOf, repointHost, resolveWork, type Work } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { takeEnds } from "./ended.ts";
import { findHostdir, readVm, type Vm } from "./find.ts";
import { ensureIdentity } from "./identity.ts";
import { waitForKilledBackup } from "./in-use.ts";
import { foreignDirectory, requireOwn } from "./ownership.ts";

/** Options for opening a VM for a change. */
export interface OpenOptions {
  /** How long to wait for the VM's lock. */
  waitMs?: number | undefined;
  /** Use defaults for unreadable settings, with a warning. */
  lenient?: boolean;
  /** As `withWholeVm`. */
  whole?: boolean;
  /** The command renews the UUID: no warning about a copy with the same one. */
  renews?: boolean;
}

/**
 * Opens the VM for a change: locks it, completes or cleans up after a killed command, and records the end of a detached
 * run.
 * @param command for the error messages
 * @param use the second argument: the guest of an interrupted `suspend` was resumed
 * @throws 73 for a foreign directory, 75 while another command changes the VM
 */
export const withVm = <T>(
  context: Context,
  command: string,
  use: (vm: Vm, undone: boolean) => Promise<T>,
  options: OpenOptions = {},
): Promise<T> =>
  withLockedVm(
    context,
    command,
    async (vm, undone) =>
      use(await withDisksSettled(await withExitRecorded(context, vm), command, options), undone),
    options,
  );

/** As `withVm`, with whole disks: none that are still being copied from the repository. @throws 75 while one is */
export const withWholeVm = <T>(
  context: Context,
  command: string,
  use: (vm: Vm, undone: boolean) => Promise<T>,
  options: OpenOptions = {},
): Promise<T> => withVm(context, command, use, { ...options, whole: true });

/** Records that all disks have been copied from the repository. @throws 75 if they must be, and are not yet */
async function withDisksSettled(vm: Vm, command: string, { whole = false }: OpenOptions): Promise<Vm> {
  if (vm.work.state !== "present" || !vm.work.mark.arriving) return vm;
  const { settleArriving, refuseArriving } = await import("./arriving.ts");
  const work = await settleArriving(vm.work);
  if (whole) await refuseArriving(work, command);
  return { ...vm, work };
}

async function withExitRecorded(context: Context, vm: Vm): Promise<Vm> {
  if (vm.work.state !== "present" || !isExitUnrecorded(vm.work.mark)) return vm;
  const { recordExit } = await import("./record-exit.ts");
  return (await recordExit(context, vm.hostdir, vm.work)) ? { ...vm, work: resolveWork(vm.hostdir) } : vm;
}

/** Opens the VM to read under its lock. A foreign one is not changed: no clean-up, no records. */
export async function withVmToRead<T>(
  context: Context,
  command: string,
  use: (vm: Vm) => Promise<T>,
): Promise<T> {
  const hostdir = findHostdir(context);
  if (foreignDirectory(hostdir) === undefined) return withVm(context, command, use, { lenient: true });
  using _lock = await lockVm(hostdir, command);
  return await use(await readVm(context, hostdir, false, { lenient: true }));
}

/** As `withVm`, without recording the end of a run: for the command that waited for it. */
export async function withLockedVm<T>(
  context: Context,
  command: string,
  use: (vm: Vm, undone: boolean) => Promise<T>,
  options: OpenOptions = {},
): Promise<T> {
  try {
    return await withLock(context, command, use, options);
  } finally {
    for (const ended of takeEnds()) await (await import("./hooks.ts")).runEndHook(context, ended);
  }
}

async function withLock<T>(
  context: Context,
  command: string,
  use: (vm: Vm, undone: boolean) => Promise<T>,
  { waitMs, lenient = false, renews = false }: OpenOptions,
): Promise<T> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, command);
  using _lock = await lockVm(hostdir, command, waitMs);
  let work: Work | undefined;
  let undone = false;
  let moved = false;
  let refused: VmError | undefined;
  try {
    ({ work, moved, refused } = repoint(hostdir));
    if (work?.state === "present" && hasSuspendedTraces(work))
      undone = await (await import("./recover-suspended.ts")).recoverSuspended(work);
    await recoverLive(hostdir, work);
    if (recover(context, hostdir, work)) work = undefined;
  } catch (error) {
    // Working files of another user have nothing to do with an interrupted command.
    if (refused && hasErrno(error, "EACCES")) throw refused;
    throw fileError(`cannot ${command}: cannot clean up after an interrupted command`, error);
  }
  try {
    const read = await readVm(context, hostdir, true, { lenient, work });
    let vm = ensureIdentity(context, read, !renews);
    if (vm.work.state === "present") await waitForKilledBackup(vm.work);
    if (vm.work.state === "present" && vm.work.mark.clone?.base && !renews) {
      vm = (await import("./moved-source.ts")).followSource(context, vm);
      await (await import("./clones.ts")).keepRecorded(vm);
    }
    if (moved && lstatOf(join(hostdir, HOST.clones))) await (await import("./renaming.ts")).rebaseClones(vm);
    if (lstatOf(join(hostdir, HOST.renaming)))
      await (await import("./renaming.ts")).recoverRenaming(context, vm);
    return await use(vm, undone);
  } catch (error) {
    // A system error is not an internal error.
    throw error instanceof Error && "errno" in error ? fileError(`cannot ${command}`, error) : error;
  }
}

/** Repoints the working files of a moved VM to HOSTDIR. @returns them; none if they are refused */
function repoint(hostdir: string): { work: Work | undefined; moved: boolean; refused?: VmError } {
  try {
    const work = repointHost(hostdir);
    if (work.state !== "present" || work.movedFrom === undefined) return { work, moved: false };
    const { movedFrom, ...here } = work;
    log.info(`this VM was moved here from ${movedFrom}: updated its working files`);
    return { work: here, moved: true };
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    // Possibly after an interrupted command: `recover` repairs that next. Else reading the VM reports it.
    return { work: undefined, moved: false, refused: error };
  }
}

/** Removes what a killed backup left in the running qemu. */
async function recoverLive(hostdir: string, work: Work | undefined): Promise<void> {
  if (listUnfinished(hostdir).length === 0 || work?.state !== "present") return;
  try {
    if (!(await isListening(join(work.dir, WORK.qmp)))) return;
    const { connectBackupMonitor } = await import("../live/source.ts");
    const { cleanUpLive } = await import("../live/clean-up.ts");
    const qmp = await connectBackupMonitor(work);
    try {
      await cleanUpLive(qmp, work.dir);
    } finally {
      qmp.close();
    }
  } catch (error) {
    // Harmless; the next snapshot tries again.
    log.warn(`cannot clean up after an interrupted snapshot: ${reasonOf(error)}`);
  }
}

/** @returns whether the working files may have changed */
function recover(context: Context, hostdir: string, work: Work | undefined): boolean {
  const parent = work && parentOf(work);
  const movingTo = work?.state === "present" ? work.mark.movingTo : undefined;
  const places = [context.tmpdir, parent, movingTo].filter((place) => place !== undefined);
  const changed = recoverWork(hostdir, places, work);
  for (const path of listUnfinished(hostdir)) remove(path);
  return changed;
}

/** Unfinished snapshots. An unreadable `backups` is reported by commands that need it. */
function listUnfinished(hostdir: string): string[] {
  const backups = join(hostdir, HOST.backups);
  try {
    return listDirectory(backups)
      .filter((name) => name.startsWith(PARTIAL))
      .map((name) => join(backups, name));
  } catch {
    return [];
  }
}
