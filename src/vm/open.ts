import { join } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { isListening } from "../process/unix-socket.ts";
import { lockVm } from "../store/lock.ts";
import { remove } from "../store/remove.ts";
import { fileError, listDirectory } from "../store/files.ts";
import { HOST, PARTIAL, WORK } from "../store/layout.ts";
import { isUnsettled } from "../store/mark.ts";
import { recoverWork } from "../store/recover.ts";
import { parentOf, repointHost, resolveWork, type Work } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { findHostdir, readVm, type Vm } from "./find.ts";
import { settleIdentity } from "./identity.ts";
import { outwaitKilledBackup } from "./in-use.ts";
import { foreignDirectory, requireOwn } from "./ownership.ts";

/** How a VM is opened for a change. */
export interface OpenOptions {
  /** How long another command's change may still take. */
  waitMs?: number | undefined;
  /** Settings that cannot be read do not stop the command: defaults stand in their place. */
  lenient?: boolean;
  /** The command gives the VM another UUID: that a copy has the same one is no news. */
  renews?: boolean;
}

/**
 * Opens the VM for a change: under its lock, after finishing what a killed command left behind and writing down
 * how a run ended that nobody waited for.
 * @param command what is done, for the error messages
 * @throws 73 for a foreign directory, 75 while another command changes the VM
 */
export const withVm = <T>(
  context: Context,
  command: string,
  use: (vm: Vm) => Promise<T>,
  options: OpenOptions = {},
): Promise<T> =>
  withLockedVm(context, command, async (vm) => use(await withExitRecorded(context, vm)), options);

async function withExitRecorded(context: Context, vm: Vm): Promise<Vm> {
  if (vm.work.state !== "present" || !isUnsettled(vm.work.mark)) return vm;
  const { recordExit } = await import("./record-exit.ts");
  return (await recordExit(context, vm.hostdir, vm.work)) ? { ...vm, work: resolveWork(vm.hostdir) } : vm;
}

/**
 * Opens the VM to read what must not change meanwhile. A foreign one is not touched: nothing is finished, cleared away
 * or written down there.
 */
export async function withVmToRead<T>(
  context: Context,
  command: string,
  use: (vm: Vm) => Promise<T>,
): Promise<T> {
  const hostdir = findHostdir(context);
  if (foreignDirectory(hostdir) === undefined) return withVm(context, command, use, { lenient: true });
  using _lock = await lockVm(hostdir, command);
  return use(await readVm(context, hostdir, false, { lenient: true }));
}

/** The same for the command that waited for the run. */
export async function withLockedVm<T>(
  context: Context,
  command: string,
  use: (vm: Vm) => Promise<T>,
  { waitMs, lenient = false, renews = false }: OpenOptions = {},
): Promise<T> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, command);
  using _lock = await lockVm(hostdir, command, waitMs);
  let work: Work | undefined;
  try {
    work = repoint(hostdir);
    await recoverLive(hostdir, work);
    if (recover(context, hostdir, work)) work = undefined;
  } catch (error) {
    throw fileError(`cannot ${command}: an interrupted command's rest cannot be cleared away`, error);
  }
  try {
    const read = await readVm(context, hostdir, true, { lenient, work });
    const vm = settleIdentity(context, read, !renews);
    if (vm.work.state === "present") await outwaitKilledBackup(vm.work);
    return await use(vm);
  } catch (error) {
    // What the system refuses is not our mistake.
    throw error instanceof Error && "errno" in error ? fileError(`cannot ${command}`, error) : error;
  }
}

/** Has the working files of a VM that was moved lead here. @returns them; undefined where they are refused */
function repoint(hostdir: string): Work | undefined {
  try {
    const work = repointHost(hostdir);
    if (work.state !== "present" || work.movedFrom === undefined) return work;
    const { movedFrom, ...here } = work;
    log.info(`this VM was moved here from ${movedFrom}: its working files are told`);
    return here;
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    // Perhaps only because a command was interrupted, which is mended next; else reading the VM says why.
    return undefined;
  }
}

/** A snapshot of the running VM that was killed has left things in its qemu. */
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
    // It harms nobody, and the next snapshot tries again.
    log.warn(
      `what an interrupted snapshot has left in the running VM could not be cleared away: ${reasonOf(error)}`,
    );
  }
}

/** @returns whether the working files may be others now */
function recover(context: Context, hostdir: string, work: Work | undefined): boolean {
  const parent = work && parentOf(work);
  const changed = recoverWork(hostdir, parent ? [context.tmpdir, parent] : [context.tmpdir], work);
  for (const path of listUnfinished(hostdir)) remove(path);
  return changed;
}

/** Snapshots that were begun. A `backups` that cannot be listed is the affair of commands that need it. */
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
