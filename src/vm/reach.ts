import { basename, dirname, join, resolve } from "node:path";
import {
  parseSetting,
  SETTING_NAMES,
  type RawSettings,
  type SettingName,
  type Settings,
} from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import type { MacroValues } from "../machine/macros.ts";
import { readOwnHeader } from "../qemu/image-header.ts";
import { listDirectory } from "../store/files.ts";
import { isSuspended } from "../store/is-suspended.ts";
import { HOST, WORK } from "../store/layout.ts";
import { ownDisks } from "../store/own-disks.ts";
import { parseBackingName } from "../store/snapshot-images.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { findExtraArgs, parseExtraArgs } from "./extra-args.ts";
import type { Vm } from "./find.ts";
import { reachesOfSettings, type Reach, type ReachPlaces } from "./reach-settings.ts";

/** Is a setting from the VM's own guest.env? Those of the user are trusted. */
const setByVm = ({ origins, hostdir, work }: Vm, name: SettingName): boolean => {
  const origin = origins[name];
  const own = [hostdir, ...(work.state === "present" ? [work.dir] : [])];
  return origin.kind === "file" && own.some((directory) => origin.file === join(directory, WORK.guestEnv));
};

/** Values of macros without check-media. */
export const knownMacros = ({ hostdir }: Vm, workdir: string): MacroValues => ({
  MEDIA: undefined,
  MIRROR: undefined,
  HOSTDIR: hostdir,
  INDIR: join(workdir, WORK.in),
  DATADIR: join(workdir, WORK.out),
});

/**
 * Finds them without opening any outside the VM's directories.
 * @param vm with the settings of files, whose origins show which are the VM's own
 * @param isRunning the recorded run has not ended
 */
export function findReaches(context: Context, vm: Vm, isRunning = false): Reach[] {
  const { settings, hostdir, work } = vm;
  const workdir = work.state === "present" ? work.dir : join(hostdir, HOST.workLink);
  const at: ReachPlaces = {
    hostdir,
    workdir,
    macros: knownMacros(vm, workdir),
    insertsCd: settings.KEEPCD || lstatOf(join(workdir, WORK.firstTime)) !== undefined,
  };
  const found = reachesOfSettings(
    SETTING_NAMES.filter((name) => setByVm(vm, name)),
    settings,
    at,
  );
  if (work.state === "present") {
    if (isRunning || isSuspended(work.dir)) found.push(...reachesOfRun(vm, work, at));
    for (const disk of ownDisks(work.dir)) {
      const base = baseOf(work.dir, disk);
      if (base !== undefined) found.push({ kind: "base", what: base });
    }
  }
  const further = findExtraArgs(context, vm);
  if (further?.ofVm)
    found.push({
      kind: "arguments",
      what: `${further.file} (${countOf(() => parseExtraArgs(context, vm, further))})`,
    });
  for (const name of listDirectory(hostdir))
    if (/^[^.-].*\.(job|pre|post)$/s.test(name)) found.push({ kind: "job", what: join(hostdir, name) });
  const known = new Set<string>();
  return found.filter((reach) => {
    const text = JSON.stringify(reach);
    return !known.has(text) && known.add(text);
  });
}

/**
 * What a running machine reaches, or that of a saved state: by the settings and the CD of its run, whatever guest.env says.
 * Of a snapshot with RAM they come from its manifest.
 */
function reachesOfRun({ settings, raw: own }: Vm, { dir, mark }: Workdir, at: ReachPlaces): Reach[] {
  const { run } = mark;
  const raw: RawSettings = { ...run?.typed.settings, ...run?.typed.additions, ...run?.settings };
  const names = (Object.keys(raw) as SettingName[]).filter(
    (name) => JSON.stringify(raw[name]) !== JSON.stringify(own[name]),
  );
  const saved = Object.fromEntries(
    names.flatMap((name) => {
      const parsed = parseSetting(name, raw[name]!);
      return "value" in parsed ? [[name, parsed.value]] : [];
    }),
  ) as Partial<Settings>;
  const cd = readSuspendedCd(dir);
  return [
    ...reachesOfSettings(names, { ...settings, ...saved }, at),
    ...(cd === undefined
      ? []
      : reachesOfSettings(["ISO"], { ...settings, ISO: cd }, { ...at, insertsCd: true })),
  ];
}

function readSuspendedCd(workdir: string): string | undefined {
  const { readSuspended } = require("../store/suspended.ts") as typeof import("../store/suspended.ts");
  try {
    return readSuspended(workdir)?.cd.path ?? undefined;
  } catch (error) {
    // It cannot be resumed, which `run` reports.
    if (error instanceof VmError) return undefined;
    throw error;
  }
}

/**
 * The backing file of a disk, unless it is one of the VM's snapshots. Nothing in the repository is read: a mount of it
 * that does not answer would never be left.
 */
function baseOf(directory: string, disk: string): string | undefined {
  try {
    const backing = readOwnHeader(join(directory, disk)).backingName;
    const isSnapshot = [WORK.hostLink, WORK.repositoryLink].some(
      (link) => parseBackingName(backing, disk, link) !== undefined,
    );
    return backing === undefined || isSnapshot ? undefined : followLink(resolve(directory, backing));
  } catch {
    // `status` reports an unreadable disk elsewhere.
    return undefined;
  }
}

/** As the user knows it: that of a linked clone is named through a symlink. */
const followLink = (path: string): string => join(realPath(dirname(path)) ?? dirname(path), basename(path));

function countOf(read: () => string[]): string {
  try {
    const count = read().length;
    return `${count} argument${count === 1 ? "" : "s"} for qemu`;
  } catch (error) {
    if (error instanceof VmError) return "not readable";
    throw error;
  }
}

/** Formats one line. */
export const formatReach = ({ kind, what, writable, backing }: Reach): string =>
  plain(
    `${kind} ${what}${kind === "port" ? ", for other hosts" : ""}${writable ? ", writable" : ""}${backing ? ", with its backing files" : ""}`,
  );
