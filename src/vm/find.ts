import { join, resolve } from "node:path";
import { loadSettings, loadUsable, type Loaded } from "../config/load.ts";
import { type Sources } from "../config/load-layer.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
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
import type { Context, ProcessFacts } from "./context.ts";
import { foreignDirectory } from "./ownership.ts";

/** A VM, opened for one command. */
export interface Vm extends Loaded {
  hostdir: string;
  work: Work;
}

/** Opens the VM of the command line, and reads its settings. */
export async function openVm(context: ProcessFacts, mayUseBash = true): Promise<Vm> {
  return readVm(context, findHostdir(context), mayUseBash);
}

/** HOSTDIR, from the command line or the current directory. */
export const findHostdir = ({ hostdir, cwd, options }: ProcessFacts): string =>
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
 * Reads the settings of the VM in a directory.
 * @param lenient use defaults for unreadable settings, with a warning
 * @param work the working files, if already resolved
 */
export async function readVm(
  context: ProcessFacts,
  hostdir: string,
  mayUseBash: boolean,
  { lenient = false, work = resolveWork(hostdir) }: { lenient?: boolean; work?: Work | undefined } = {},
): Promise<Vm> {
  const sources = sourcesOf(context, hostdir, work, mayUseBash);
  const loaded = lenient ? await loadLeniently(sources) : await loadSettings(sources);
  const place = placeAt(hostdir, loaded);
  if (place !== undefined)
    throw new VmError("usage", `${hostdir} is ${place}, which cannot be a VM's directory`, {
      hint: `create a directory for the VM: mkdir -m 700 ${join(loaded.settings.PROFILES, "NAME")} && cd $_`,
    });
  return { ...loaded, hostdir, work };
}

/** The setting whose directory this is, as it cannot be a VM's then. */
const placeAt = (hostdir: string, { settings }: Loaded): string | undefined =>
  (["PROFILES", "LIBEXEC"] as const).find((name) => realPath(settings[name]) === hostdir);

async function loadLeniently(sources: Sources): Promise<Loaded> {
  const { error, unread: _, written: __, ...loaded } = await loadUsable(sources);
  if (error) warnOnce(error.message);
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
  const own = await openUser(context);
  if (foreignDirectory(hostdir) === undefined && placeAt(hostdir, own) === undefined) return openVm(context);
  return { ...own, hostdir, work: { state: "none" } };
}

/** The sources of a VM's settings. */
export const sourcesOf = (
  context: ProcessFacts,
  hostdir: string,
  work: Work,
  mayUseBash = true,
): Sources => ({
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
