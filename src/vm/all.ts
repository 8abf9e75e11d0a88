import { basename, dirname, isAbsolute, join } from "node:path";
import { lstatOf, readSmall, realPath } from "../lib/read-file.ts";
import { listDirectory } from "../store/files.ts";
import { HOST, LOST_FOUND } from "../store/layout.ts";
import { listPlaces } from "../store/places.ts";
import { listNoted } from "../store/running.ts";
import type { Context, ProcessFacts } from "./context.ts";
import { openUser, readVm } from "./find.ts";

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

/** The VMs that have one of these labels, by their directories. Those whose settings cannot be read have none. */
export async function findLabelled(context: Context, labels: readonly string[]): Promise<Labelled[]> {
  const { PROFILES } = (await openUser(context)).settings;
  const found = await Promise.all(
    findVms(context, PROFILES).map(async (hostdir): Promise<Labelled[]> => {
      const { GUESTNAME, LABELS } = await readOwnSettings(context, hostdir);
      return LABELS.some((label) => labels.includes(label))
        ? [{ name: GUESTNAME || basename(hostdir), hostdir }]
        : [];
    }),
  );
  return found.flat();
}

/** All labels that VMs have, sorted. */
export async function listLabels(context: ProcessFacts, profiles: string): Promise<string[]> {
  const all = await Promise.all(
    findVms(context, profiles).map((hostdir) => readOwnSettings(context, hostdir)),
  );
  return [...new Set(all.flatMap(({ LABELS }) => LABELS))].toSorted();
}

/** Without those of the command line, and without bash. */
async function readOwnSettings(
  context: ProcessFacts,
  hostdir: string,
): Promise<{ GUESTNAME: string; LABELS: string[] }> {
  const own = { ...context, hostdir, options: { settings: {}, additions: {}, hostdir } };
  try {
    return (await readVm(own, hostdir, false)).settings;
  } catch {
    return { GUESTNAME: "", LABELS: [] };
  }
}
