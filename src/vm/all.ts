import { basename, dirname, isAbsolute, join } from "node:path";
import type { VmError } from "../lib/errors.ts";
import { lstatOf, readSmall, realPath } from "../lib/read-file.ts";
import { listDirectory } from "../store/files.ts";
import { HOST, LOST_FOUND } from "../store/layout.ts";
import { listPlaces } from "../store/places.ts";
import { listNoted } from "../store/running.ts";
import type { Context, ProcessFacts } from "./context.ts";
import { openUser } from "./find.ts";

/** Directories of VMs, sorted: with settings, working files or snapshots; no rescue profiles. */
export function findVms(context: ProcessFacts, profiles: string): string[] {
  const home = realPath(profiles);
  const below = home ? listDirectory(home).map((name) => join(home, name)) : [];
  const recorded = [...listNoted(context.cacheDirectory), ...listPlaces(context.cacheDirectory)];
  const elsewhere = recorded.filter((directory) => isAbsolute(directory) && dirname(directory) !== home);
  return [...new Set([...below, ...elsewhere])].filter(isVm).toSorted();
}

function isVm(directory: string): boolean {
  try {
    if (lstatOf(join(directory, HOST.workLink)) || lstatOf(join(directory, HOST.backups))) return true;
  } catch {
    // Listed as broken, with the reason.
    return basename(directory) !== LOST_FOUND;
  }
  // A rescue profile, written by `rescue build` or by hand.
  const text = readSettingsText(join(directory, HOST.guestEnv));
  return text !== undefined && !/^\s*RESCUE_(ISO|KERNEL)=/m.test(text);
}

function readSettingsText(path: string): string | undefined {
  try {
    return readSmall(path);
  } catch {
    // Unreadable: listed as broken.
    return "";
  }
}

/** A VM that has a label. */
export interface Labelled {
  name: string;
  hostdir: string;
}

/** A VM whose labels cannot be read. */
export interface Unlabelled extends Labelled {
  error: VmError;
}

/** The VMs that have one of these labels, by their directories, and those whose labels cannot be read. */
export async function findLabelled(
  context: Context,
  labels: readonly string[],
): Promise<{ found: Labelled[]; unknown: Unlabelled[] }> {
  const { PROFILES } = (await openUser(context)).settings;
  const { readOwnSettings } = await import("./own-settings.ts");
  const directories = findVms(context, PROFILES);
  const all = await Promise.all(
    directories.map(async (hostdir) => ({ hostdir, ...(await readOwnSettings(context, hostdir)) })),
  );
  return {
    found: all.filter((vm) => vm.labels?.some((label) => labels.includes(label))),
    unknown: all.flatMap(({ name, hostdir, labels: own, error }) =>
      own === undefined && error ? [{ name, hostdir, error }] : [],
    ),
  };
}

/** All labels that VMs have, sorted. */
export async function listLabels(context: ProcessFacts, profiles: string): Promise<string[]> {
  const { readOwnSettings } = await import("./own-settings.ts");
  const all = await Promise.all(
    findVms(context, profiles).map((hostdir) => readOwnSettings(context, hostdir)),
  );
  return [...new Set(all.flatMap(({ labels }) => labels ?? []))].toSorted();
}
