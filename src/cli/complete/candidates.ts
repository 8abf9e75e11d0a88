import { readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { plain } from "../../lib/text.ts";
import type { ProcessFacts } from "../../vm/context.ts";
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
  context: ProcessFacts,
): Promise<Candidate[]> {
  const all = await listAll(source, stem, context);
  // Shells and terminals would interpret control characters.
  return all.filter(({ text }) => text.startsWith(stem) && plain(text) === text);
}

async function listAll(source: CandidateSource, stem: string, context: ProcessFacts): Promise<Candidate[]> {
  switch (source.kind) {
    case "words":
      return source.words;
    case "disks":
      return (await import("./settings.ts")).diskCandidates(context);
    case "snapshots":
      return (await import("./snapshots.ts")).snapshotCandidates(context);
    case "jobs":
      return (await import("./settings.ts")).jobCandidates(context);
    case "profiles":
      return (await import("./settings.ts")).profileCandidates(context);
    case "labels":
      return (await import("./settings.ts")).labelCandidates(context, source.at);
    case "directories":
      return files(stem, context, () => false);
    case "files": {
      const { suffix = "" } = source;
      return files(stem, context, (name) => name.toLowerCase().endsWith(suffix));
    }
  }
}

/** Directories and wanted files that start with `stem`. Hidden ones only if `stem` has the dot. */
function files(stem: string, { cwd, home }: ProcessFacts, isWanted: (name: string) => boolean): Candidate[] {
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
