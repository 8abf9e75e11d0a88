import { readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { plain } from "../../lib/text.ts";
import { formatTimestamp } from "../../lib/time.ts";
import type { Context } from "../../vm/context.ts";
import type { Candidate, CandidateSource } from "./values.ts";

/** Expands a leading tilde like the shell. */
export const expandHome = (path: string, home: string): string => path.replace(/^~(?=\/|$)/, () => home);

/**
 * Lists the candidates of a source.
 * @param context `options.hostdir` as typed
 * @param stem prefix of the candidates
 */
export async function listCandidates(
  source: CandidateSource,
  stem: string,
  context: Context,
): Promise<Candidate[]> {
  const all = await listAll(source, stem, context);
  // Shells and terminals would interpret control characters.
  return all.filter(({ text }) => text.startsWith(stem) && plain(text) === text);
}

async function listAll(source: CandidateSource, stem: string, context: Context): Promise<Candidate[]> {
  switch (source.kind) {
    case "words":
      return source.words;
    case "disks":
      return disks(context);
    case "snapshots":
      return snapshots(await hostdirOf(context));
    case "jobs": {
      const { listJobs } = await import("../../rescue/find-job.ts");
      return listJobs({
        hostdir: await hostdirOf(context),
        profiles: await profilesOf(context),
        libexec: context.libexec,
      }).map(({ name, place }) => ({ text: name, help: place }));
    }
    case "profiles": {
      const { listProfiles } = await import("../../rescue/profiles.ts");
      return listProfiles(await profilesOf(context)).map((text) => ({ text }));
    }
    case "directories":
      return files(stem, context, () => false);
    case "files": {
      const { suffix = "" } = source;
      return files(stem, context, (name) => name.toLowerCase().endsWith(suffix));
    }
  }
}

async function hostdirOf({ cwd, options }: Context): Promise<string> {
  const { resolveHostdir } = await import("../../store/workdir.ts");
  return resolveHostdir(resolve(cwd, options.hostdir ?? "."));
}

/** PROFILES from the settings, if these can be read without bash. */
async function profilesOf(context: Context): Promise<string> {
  try {
    const { openVm } = await import("../../vm/find.ts");
    return (await openVm(context, false)).settings.PROFILES;
  } catch {
    return join(context.home, context.prog);
  }
}

/** Numbers of the VM's disks. */
async function disks(context: Context): Promise<Candidate[]> {
  const [{ openVm }, { numberImages }] = await Promise.all([
    import("../../vm/find.ts"),
    import("../../vm/disks.ts"),
  ]);
  const { settings } = await openVm(context, false);
  const numbers = numberImages(settings);
  return settings.IMAGES.map(({ path }, index) => ({ text: String(numbers[index]), help: path }));
}

/** Newest first. */
async function snapshots(hostdir: string): Promise<Candidate[]> {
  const { listSnapshots, readDescription } = await import("../../store/snapshots.ts");
  return listSnapshots(hostdir)
    .toReversed()
    .map(({ name, dir, made }) => ({
      text: name,
      help: () => `${formatTimestamp(made)} ${readDescription(dir)}`.trim(),
    }));
}

/** Directories and wanted files that start with `stem`. Hidden ones only if `stem` has the dot. */
function files(stem: string, { cwd, home }: Context, isWanted: (name: string) => boolean): Candidate[] {
  const typed = stem.slice(0, stem.lastIndexOf("/") + 1);
  const directory = resolve(cwd, expandHome(typed, home));
  const isDirectory = (name: string): boolean =>
    statSync(join(directory, name), { throwIfNoEntry: false })?.isDirectory() ?? false;
  const found: Candidate[] = [];
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const { name } = entry;
    const path = typed + name;
    if (
      !path.startsWith(stem) ||
      (name.startsWith(".") && path.length > 0 && !stem.slice(typed.length).startsWith("."))
    )
      continue;
    if (entry.isDirectory() || (entry.isSymbolicLink() && isDirectory(name)))
      found.push({ text: `${path}/`, path: true });
    else if (isWanted(name)) found.push({ text: path, path: true });
  }
  return found.toSorted((a, b) => (a.text < b.text ? -1 : 1));
}
