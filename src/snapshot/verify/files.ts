import { join } from "node:path";
import { isBlank } from "../../config/check-guest-env.ts";
import { readAssignments } from "../../config/literal.ts";
import { parseImage } from "../../machine/parse.ts";
import { lstatOf, readSmall } from "../../lib/read-file.ts";
import { listDirectory } from "../../store/files.ts";
import { isDiskName, SNAPSHOT, WORK } from "../../store/layout.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import { compareSums, loadSums } from "../../store/checksums.ts";

/** Files that SHA256SUMS does not list. */
const WITHOUT_SUM: readonly string[] = [SNAPSHOT.sums, SNAPSHOT.protected];

/** Does a restore, or the restored VM, use the file? */
const isUsed = (name: string): boolean =>
  /^(disk-\d+\.|efivars\.|state\.)/.test(name) || name === WORK.guestEnv || name.endsWith(".defaults");

/** Compares a snapshot's files with its manifest, SHA256SUMS and guest.env, without reading disk contents. */
export function checkNames(snapshot: Snapshot, notes: string[]): string[] {
  const { dir, manifest } = snapshot;
  const problems: string[] = [];
  const present = listDirectory(dir);
  for (const name of present)
    if (!lstatOf(join(dir, name))?.isFile()) problems.push(`${name} is no regular file`);
  for (const { file, storedBytes } of manifest?.files ?? []) {
    const size = lstatOf(join(dir, file))?.size;
    if (size === undefined) problems.push(`${file} is missing`);
    else if (size !== storedBytes) problems.push(`${file} has ${size} bytes instead of ${storedBytes}`);
  }
  const files = manifest?.files.map(({ file }) => file);
  for (const name of present)
    if (/^(disk-\d+|efivars|state)\./.test(name) && files?.includes(name) === false)
      problems.push(`${name} is not one of its files`);
  return [...problems, ...checkSumNames(snapshot, present, notes), ...findMissingDisks(snapshot, present)];
}

function checkSumNames({ dir, manifest }: Snapshot, present: readonly string[], notes: string[]): string[] {
  const parsed = loadSums(dir);
  if (!parsed) {
    if (manifest) return [`${SNAPSHOT.sums} is missing`];
    notes.push("created by the earlier program: no checksums except gzip's own, and no manifest");
    return [];
  }
  const { sums: listed, problems } = parsed;
  if (!manifest && !listed.has(SNAPSHOT.manifest)) notes.push("it has no manifest");
  for (const name of present) {
    if (listed.has(name) || WITHOUT_SUM.includes(name)) continue;
    if (name === SNAPSHOT.description) {
      // After a killed `snapshots describe`; the next one adds it.
      notes.push("its description has no checksum");
      continue;
    }
    const known = isUsed(name) || Object.values<string>(SNAPSHOT).includes(name);
    if (known) problems.push(`${SNAPSHOT.sums} does not name ${name}`);
    else notes.push(`${name} was added later`);
  }
  return problems;
}

/** Verifies the checksum of every file. */
export async function findSumProblems({ dir, manifest }: Snapshot, low: boolean): Promise<string[]> {
  if (!lstatOf(join(dir, SNAPSHOT.sums))?.isFile()) return [];
  const sizes = new Map(manifest?.files.map(({ file, storedBytes }) => [file, storedBytes]));
  return compareSums(dir, { low, sizes });
}

/** Finds disks of guest.env that are missing, as after a killed backup of the earlier program. */
function findMissingDisks({ dir, manifest }: Snapshot, present: readonly string[]): string[] {
  const text = readSmall(join(dir, WORK.guestEnv));
  if (text === undefined) return manifest ? [] : [`${WORK.guestEnv} is missing`];
  if (isBlank(text)) return [`${WORK.guestEnv} is empty`];
  const read = readAssignments(text, () => "");
  if (read.kind !== "values") return [];
  const images = read.assignments.findLast((item) => item.name === "IMAGES")?.value ?? [];
  const stored = manifest
    ? manifest.files.map(({ name }) => name)
    : present.filter((name) => name.endsWith(SNAPSHOT.gz)).map((name) => name.slice(0, -SNAPSHOT.gz.length));
  return [images]
    .flat()
    .flatMap((item) => parseImage(item) ?? [])
    .filter(({ path }) => isDiskName(path) && !stored.includes(path))
    .map(({ path }) => `${path}, named in ${WORK.guestEnv}, is missing`);
}
