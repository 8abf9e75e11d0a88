import { join, resolve } from "node:path";
import { loadSettings, loadUsable, type Loaded } from "../config/load.ts";
import { type Sources } from "../config/load-layer.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { isListening } from "../process/unix-socket.ts";
import { lockVm } from "../store/lock.ts";
import { fileError, listDirectory, realPath, remove } from "../store/files.ts";
import { HOST, LAST, PARTIAL, WORK } from "../store/layout.ts";
import { recoverWork } from "../store/recover.ts";
import {
  describeGone,
  findGuestEnv,
  parentOf,
  repointHost,
  resolveHostdir,
  resolveWork,
  type Present,
  type Work,
} from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { settleIdentity } from "./identity.ts";
import { hintForWork, requireVm } from "../store/no-vm.ts";
import { outwaitKilledBackup } from "./in-use.ts";
import { ownDisks } from "../store/own-disks.ts";
import { foreignDirectory, requireOwn } from "./ownership.ts";
import { settleRun } from "./exit-reason.ts";

/** A VM as one command finds it. */
export interface Vm extends Loaded {
  hostdir: string;
  work: Work;
}

/** Finds the VM that the command line means, and reads its settings. */
export async function openVm(context: Context, mayUseBash = true): Promise<Vm> {
  return readVm(context, findHostdir(context), mayUseBash);
}

/** HOSTDIR, as the command line and the current directory say. */
export const findHostdir = ({ hostdir, cwd, options }: Context): string =>
  hostdir ?? resolveHostdir(resolve(cwd, options.hostdir ?? "."));

/** The context with HOSTDIR found; as it is where that cannot be: commands that need it say why. */
export function withHostdir(context: Context): Context {
  try {
    return { ...context, hostdir: findHostdir(context) };
  } catch {
    return context;
  }
}

/**
 * @param lenient defaults for settings that cannot be read, with a warning
 * @param work the working files, where they have been resolved
 */
async function readVm(
  context: Context,
  hostdir: string,
  mayUseBash: boolean,
  { lenient = false, work = resolveWork(hostdir) }: { lenient?: boolean; work?: Work | undefined } = {},
): Promise<Vm> {
  const sources = sourcesOf(context, hostdir, work, mayUseBash);
  const loaded = lenient ? await loadLeniently(sources) : await loadSettings(sources);
  const { PROFILES, LIBEXEC } = loaded.settings;
  for (const [name, path] of Object.entries({ PROFILES, LIBEXEC }))
    if (realPath(path) === hostdir)
      throw new VmError("usage", `${hostdir} is ${name}, which cannot be a VM's own directory`, {
        hint: `make a directory for the VM: mkdir -m 700 ${join(PROFILES, "NAME")} && cd $_`,
      });
  return { ...loaded, hostdir, work };
}

async function loadLeniently(sources: Sources): Promise<Loaded> {
  const { error, ...loaded } = await loadUsable(sources);
  if (error) log.warn(error.message);
  return loaded;
}

/** Settings of no VM in particular: the host's and the user's. */
export const openUser = (context: Context): Promise<Loaded> =>
  loadSettings({ ...sourcesOf(context, context.cwd, { state: "none" }, false), guestEnv: undefined });

/**
 * The VM; where it is foreign, the caller's own settings alone. For what is written outside of a VM's directory: its
 * owner must not choose where.
 */
export async function openOwnVm(context: Context): Promise<Vm> {
  const hostdir = findHostdir(context);
  if (foreignDirectory(hostdir) === undefined) return openVm(context);
  return { ...(await openUser(context)), hostdir, work: { state: "none" } };
}

/** Where the settings of a VM come from. */
export const sourcesOf = (context: Context, hostdir: string, work: Work, mayUseBash = true): Sources => ({
  prog: context.prog,
  home: context.home,
  hostArch: context.hostArch,
  profiles: context.profiles,
  libexec: context.libexec,
  hostdir,
  workdir: work.state === "present" ? work.dir : undefined,
  guestEnv: findGuestEnv(hostdir, work),
  guestEnvPlace: join(work.state === "present" ? work.dir : hostdir, HOST.guestEnv),
  lastGuestEnv: join(hostdir, HOST.backups, LAST, HOST.guestEnv),
  workingDisks: work.state === "present" ? ownDisks(work.dir) : [],
  env: context.env,
  options: context.options.settings,
  additions: context.options.additions,
  spelled: context.options.spelled,
  mayUseBash,
});

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
  withLockedVm(
    context,
    command,
    async (vm) =>
      use((await settleRun(context, vm.hostdir, vm.work)) ? { ...vm, work: resolveWork(vm.hostdir) } : vm),
    options,
  );

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
    const { talkForLong } = await import("../live/source.ts");
    const { cleanUpLive } = await import("../live/clean-up.ts");
    const qmp = await talkForLong(work);
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

/** Working files, or an error that says what to do. */
export function requireWork(vm: Vm, command: string): Present {
  if (vm.work.state === "present") return vm.work;
  requireVm(vm.hostdir);
  const reason =
    vm.work.state === "gone" ? describeGone(vm.work) : `the VM in ${vm.hostdir} has no working files`;
  const lost = vm.work.state === "gone" && vm.work.remains === true;
  throw new VmError(lost ? "io" : "noInput", `cannot ${command}: ${reason}`, {
    hint: hintForWork(vm.hostdir),
  });
}
