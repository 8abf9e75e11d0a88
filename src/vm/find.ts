import { join, resolve } from "node:path";
import { loadSettings, loadUsable, type Loaded } from "../config/load.ts";
import { type Sources } from "../config/load-layer.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { realPath } from "../lib/read-file.ts";
import { HOST, LAST } from "../store/layout.ts";
import { hintForWork, requireVm } from "../store/no-vm.ts";
import { ownDisks } from "../store/own-disks.ts";
import {
  describeGone,
  findGuestEnv,
  resolveHostdir,
  resolveWork,
  type Workdir,
  type Work,
} from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { foreignDirectory } from "./ownership.ts";

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
 * Reads the settings of the VM in a directory.
 * @param lenient defaults for settings that cannot be read, with a warning
 * @param work the working files, where they have been resolved
 */
export async function readVm(
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

/** Working files, or an error that says what to do. */
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
