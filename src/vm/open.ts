import { join, resolve } from "node:path";
import { loadSettings, loadUsable, type Loaded } from "../config/load.ts";
import { type Sources } from "../config/load-layer.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { isListening } from "../process/unix-socket.ts";
import { lockVm } from "../store/lock.ts";
import { remove } from "../store/remove.ts";
import { realPath } from "../lib/read-file.ts";
import { fileError, listDirectory } from "../store/files.ts";
import { HOST, LAST, PARTIAL, WORK } from "../store/layout.ts";
import { recoverWork } from "../store/recover.ts";
import {
  describeGone,
  findGuestEnv,
  parentOf,
  repointHost,
  resolveHostdir,
  resolveWork,
  type Workdir,
  type Work,
} from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { ensureIdentity } from "./identity.ts";
import { hintForWork, requireVm } from "../store/no-vm.ts";
import { waitForKilledBackup } from "./in-use.ts";
import { ownDisks } from "../store/own-disks.ts";
import { foreignDirectory, requireOwn } from "./ownership.ts";
import { recordExit } from "./exit-reason.ts";

/** A VM, opened for one command. */
export interface Vm extends Loaded {
  hostdir: string;
  work: Work;
}

/** Opens the VM of the command line, and reads its settings. */
export async function openVm(context: Context, mayUseBash = true): Promise<Vm> {
  return readVm(context, findHostdir(context), mayUseBash);
}

/** HOSTDIR, from the command line or the current directory. */
export const findHostdir = ({ hostdir, cwd, options }: Context): string =>
  hostdir ?? resolveHostdir(resolve(cwd, options.hostdir ?? "."));

/** The context with HOSTDIR; unchanged if it cannot be resolved, which commands that need it report. */
export function withHostdir(context: Context): Context {
  try {
    return { ...context, hostdir: findHostdir(context) };
  } catch {
    return context;
  }
}

/**
 * @param lenient use defaults for unreadable settings, with a warning
 * @param work the working files, if already resolved
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
      throw new VmError("usage", `${hostdir} is ${name}, which cannot be a VM's directory`, {
        hint: `create a directory for the VM: mkdir -m 700 ${join(PROFILES, "NAME")} && cd $_`,
      });
  return { ...loaded, hostdir, work };
}

async function loadLeniently(sources: Sources): Promise<Loaded> {
  const { error, ...loaded } = await loadUsable(sources);
  if (error) log.warn(error.message);
  return loaded;
}

/** The host's and the user's settings, without a VM. */
export const openUser = (context: Context): Promise<Loaded> =>
  loadSettings({ ...sourcesOf(context, context.cwd, { state: "none" }, false), guestEnv: undefined });

/**
 * The VM; if it is foreign, only the caller's own settings. For files outside of the VM's directory: a foreign owner must
 * not choose their paths.
 */
export async function openOwnVm(context: Context): Promise<Vm> {
  const hostdir = findHostdir(context);
  if (foreignDirectory(hostdir) === undefined) return openVm(context);
  return { ...(await openUser(context)), hostdir, work: { state: "none" } };
}

/** The sources of a VM's settings. */
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

/** Options for opening a VM for a change. */
export interface OpenOptions {
  /** How long to wait for the VM's lock. */
  waitMs?: number | undefined;
  /** Use defaults for unreadable settings, with a warning. */
  lenient?: boolean;
  /** The command renews the UUID: no warning about a copy with the same one. */
  renews?: boolean;
}

/**
 * Opens the VM for a change: locks it, completes or cleans up after a killed command, and records the end of a detached
 * run.
 * @param command for the error messages
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
      use((await recordExit(context, vm.hostdir, vm.work)) ? { ...vm, work: resolveWork(vm.hostdir) } : vm),
    options,
  );

/** Opens the VM to read under its lock. A foreign one is not changed: no clean-up, no records. */
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

/** As `withVm`, without recording the end of a run: for the command that waited for it. */
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
    throw fileError(`cannot ${command}: cannot clean up after an interrupted command`, error);
  }
  try {
    const read = await readVm(context, hostdir, true, { lenient, work });
    const vm = ensureIdentity(context, read, !renews);
    if (vm.work.state === "present") await waitForKilledBackup(vm.work);
    return await use(vm);
  } catch (error) {
    // A system error is not an internal error.
    throw error instanceof Error && "errno" in error ? fileError(`cannot ${command}`, error) : error;
  }
}

/** Repoints the working files of a moved VM to HOSTDIR. @returns them; undefined if they are refused */
function repoint(hostdir: string): Work | undefined {
  try {
    const work = repointHost(hostdir);
    if (work.state !== "present" || work.movedFrom === undefined) return work;
    const { movedFrom, ...here } = work;
    log.info(`this VM was moved here from ${movedFrom}: updated its working files`);
    return here;
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    // Possibly after an interrupted command: `recover` repairs that next. Else reading the VM reports it.
    return undefined;
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
  const changed = recoverWork(hostdir, parent ? [context.tmpdir, parent] : [context.tmpdir], work);
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

/** The working files. @throws 66 or 74 with a hint if there are none */
export function requireWork(vm: Vm, command: string): Workdir {
  if (vm.work.state === "present") return vm.work;
  requireVm(vm.hostdir);
  const reason =
    vm.work.state === "gone" ? describeGone(vm.work) : `the VM in ${vm.hostdir} has no working files`;
  const lost = vm.work.state === "gone" && vm.work.remains === true;
  throw new VmError(lost ? "io" : "noInput", `cannot ${command}: ${reason}`, {
    hint: hintForWork(vm.hostdir),
  });
}
