import { join } from "node:path";
import { throwIfInterrupted } from "../../process/signals.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { listDirectory } from "../../store/files.ts";
import { isDiskName, SNAPSHOT, STATE } from "../../store/layout.ts";
import { SMALL_FILES } from "../../store/small-files.ts";
import { isNewer } from "../../store/snapshot-info.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import { checkNames, findSumProblems } from "./files.ts";
import { checkGz, checkQcow2, type VerifyOptions, type Found, type ImageFacts } from "./images.ts";
import type { Report } from "./report.ts";

/**
 * Checks one snapshot, without its parents.
 * @param parent undefined if it has none or it is missing
 */
export async function checkSnapshot(
  snapshot: Snapshot,
  parent: Snapshot | undefined,
  options: VerifyOptions,
): Promise<Report> {
  const { name, dir, manifest, problem } = snapshot;
  const started = performance.now();
  const notes: string[] = [];
  const problems = problem ? [problem.message] : [];
  const bytes = sizeIn(dir);
  if (bytes === undefined)
    return { name, format: undefined, ok: false, problems, notes, bytes: 0, seconds: 0 };
  if (isNewer(snapshot))
    return { name, format: undefined, ok: false, newer: true, problems, notes, bytes, seconds: 0 };
  problems.push(...checkNames(snapshot, notes));
  if (manifest?.parent !== undefined && (manifest.parentId ?? manifest.parentSum) === undefined)
    notes.push(`its parent ${manifest.parent} is recorded by name only (created by an earlier version)`);
  // Both read the same files: the second one reads the page cache.
  const [sums, found] = await Promise.all([
    findSumProblems(snapshot, options.low),
    checkImages(snapshot, parent, options),
  ]);
  throwIfInterrupted();
  problems.push(...sums, ...found.problems);
  notes.push(...found.notes);
  return {
    name,
    format: manifest?.format ?? (problem ? undefined : "earlier"),
    ok: problems.length === 0,
    problems: [...new Set(problems)],
    notes,
    bytes,
    seconds: (performance.now() - started) / 1000,
  };
}

/** Sum of file sizes; undefined if the directory cannot be read. */
function sizeIn(dir: string): number | undefined {
  try {
    return listDirectory(dir).reduce((sum, file) => sum + (lstatOf(join(dir, file))?.size ?? 0), 0);
  } catch {
    return undefined;
  }
}

/** Files of disks and NVRAM; without a manifest by their names. */
function storedNames({ dir, manifest }: Snapshot): string[] {
  if (manifest) return manifest.files.map(({ file }) => file);
  return listDirectory(dir).filter((file) => {
    const name = file.slice(0, -SNAPSHOT.gz.length);
    return file.endsWith(SNAPSHOT.gz) && (isDiskName(name) || SMALL_FILES.has(name));
  });
}

async function checkImages(
  snapshot: Snapshot,
  parent: Snapshot | undefined,
  options: VerifyOptions,
): Promise<Found> {
  const { dir, manifest } = snapshot;
  const problems: string[] = [];
  const notes: string[] = [];
  for (const file of storedNames(snapshot)) {
    // Any content may be in the guest's RAM: it has its checksum only.
    if (file === STATE.ram) continue;
    const known = manifest?.files.find((item) => item.file === file);
    const compressed = file.endsWith(SNAPSHOT.gz);
    const found = compressed
      ? await checkGz(dir, file, known, options)
      : await checkQcow2(dir, file, known, options);
    problems.push(...found.problems);
    notes.push(...found.notes);
    if (found.facts) problems.push(...checkBacking(snapshot, parent, file, found.facts));
  }
  return { problems, notes };
}

/** The backing file must be the parent's disk of the same name. */
function checkBacking(
  { manifest }: Snapshot,
  parent: Snapshot | undefined,
  file: string,
  facts: ImageFacts,
): string[] {
  const { "backing-filename": backing, "backing-filename-format": format } = facts;
  const named = manifest?.parent;
  if (backing === undefined) {
    // A disk that was added after the parent has no backing file.
    const before = parent?.manifest?.files.some((item) => item.file === file);
    return named !== undefined && before ? [`${file} has no backing file in its parent ${named}`] : [];
  }
  if (named === undefined)
    return [`${file} refers to the backing file ${backing}, but the snapshot has no parent`];
  if (backing !== `../${named}/${file}`)
    return [`${file} refers to the backing file ${backing} instead of ../${named}/${file}`];
  if (format !== "qcow2")
    return [`${file} has a backing file of ${format === undefined ? "unknown format" : `format ${format}`}`];
  if (!parent?.manifest) return [];
  const below = parent.manifest.files.find((item) => item.file === file);
  if (!below) return [`${file} refers to the backing file ../${named}/${file}, which ${named} does not have`];
  const size = facts["virtual-size"];
  return below.virtualBytes === undefined || below.virtualBytes === size
    ? []
    : [`${file} holds a disk of ${size} bytes, ${named}'s one of ${below.virtualBytes}`];
}
