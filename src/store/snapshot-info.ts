import { join } from "node:path";
import { allocatedBytes, listDirectory, lstatOf, readSmall } from "./files.ts";
import { isDiskName, SNAPSHOT } from "./layout.ts";
import type { SnapshotFormat } from "../machine/types.ts";
import type { Consistency } from "./mark.ts";
import { parentsOf } from "./snapshot-dependents.ts";
import { lastName, listSnapshots, type Snapshot } from "./snapshots.ts";

/** What there is to say of a snapshot without reading its bulk; `--json` prints it so. */
export interface SnapshotFacts {
  name: string;
  made: Date;
  /** LAST leads to it. */
  last: boolean;
  protected: boolean;
  format: SnapshotFormat;
  parent: string | null;
  /** Null for snapshots of the earlier program, which notes neither. */
  consistency: Consistency | null;
  /** Of all disks, as the guest sees them. */
  guestBytes: number | null;
  /** What the snapshot occupies itself. */
  addedBytes: number;
  description: string;
  /** Why it cannot be restored, as far as that shows at once: no checksums are computed. */
  problem: string | null;
  /** That is only that a newer version of this program made it: it may well be good. */
  newer?: true;
  files: SnapshotFile[];
}

export interface SnapshotFile {
  name: string;
  bytes: number;
  allocatedBytes: number;
}

/** A snapshot with all that is known of it. */
export interface Known {
  snapshot: Snapshot;
  facts: SnapshotFacts;
}

/** All snapshots of a VM, oldest first. */
export function knowSnapshots(hostdir: string): Known[] {
  const last = lastName(hostdir);
  // One that is removed meanwhile is no news: a list takes no lock.
  const all = listSnapshots(hostdir).flatMap((snapshot) => {
    const facts = readFacts(snapshot, snapshot.name === last);
    return facts.files.length > 0 || lstatOf(snapshot.dir) ? [{ snapshot, facts }] : [];
  });
  const byName = new Map(all.map((item) => [item.facts.name, item.facts]));
  // Oldest first, but a clock set back may have made a child older than its parent.
  const seen = new Set<string>();
  for (const { facts } of all) settleParents(facts, byName, seen);
  return all;
}

/** A snapshot is worth no more than those it builds on. */
function settleParents(facts: SnapshotFacts, byName: Map<string, SnapshotFacts>, seen: Set<string>): void {
  const chain: SnapshotFacts[] = [];
  for (let item: SnapshotFacts | undefined = facts; item && !seen.has(item.name);) {
    seen.add(item.name);
    chain.push(item);
    item = item.parent === null ? undefined : byName.get(item.parent);
  }
  for (const item of chain.toReversed()) {
    if (item.parent === null) continue;
    const parent = byName.get(item.parent);
    if (!parent) item.problem ??= `its parent ${item.parent} is not there`;
    else if (parent.problem !== null) item.problem ??= `its parent ${parent.name} is damaged`;
    else if (chain.indexOf(parent) >= 0 && chain.indexOf(parent) <= chain.indexOf(item))
      item.problem ??= `it builds on itself by way of ${parent.name}`;
  }
}

/** It is not damaged, but in a form that this version does not know. */
export const isNewer = ({ problem }: Snapshot): boolean => problem?.reason === "newer";

function readFacts(snapshot: Snapshot, last: boolean): SnapshotFacts {
  const { dir, manifest, name, made } = snapshot;
  const files = namesIn(dir)
    .toSorted()
    .flatMap((file): SnapshotFile[] => {
      const stats = lstatOf(join(dir, file));
      return stats?.isFile()
        ? [{ name: file, bytes: stats.size, allocatedBytes: allocatedBytes(stats) }]
        : [];
    });
  const byName = new Map(files.map((file) => [file.name, file]));
  const disks = manifest?.files.filter((file) => isDiskName(file.name)) ?? [];
  const known = manifest && disks.every(({ virtualBytes }) => virtualBytes !== undefined);
  return {
    name,
    made,
    last,
    protected: byName.has(SNAPSHOT.protected),
    format: manifest?.format ?? "gz",
    parent: parentsOf(snapshot)[0] ?? null,
    consistency: manifest?.consistency ?? null,
    guestBytes: known ? disks.reduce((sum, { virtualBytes = 0 }) => sum + virtualBytes, 0) : null,
    addedBytes: files.reduce((sum, file) => sum + file.allocatedBytes, 0),
    description: byName.get(SNAPSHOT.description)?.bytes ? readDescription(dir) : "",
    problem: problemOf(snapshot, byName) ?? null,
    ...(isNewer(snapshot) && { newer: true }),
    files,
  };
}

/** None where the directory cannot be read: `problem` says so. */
function namesIn(dir: string): string[] {
  try {
    return listDirectory(dir);
  } catch {
    return [];
  }
}

function readDescription(dir: string): string {
  try {
    return (readSmall(join(dir, SNAPSHOT.description)) ?? "").trim();
  } catch {
    // Not ours to read, or no file; the snapshot can be restored.
    return "";
  }
}

function problemOf({ manifest, problem }: Snapshot, files: Map<string, SnapshotFile>): string | undefined {
  // That of a file names the file, which is not the snapshot.
  if (problem) return problem.reason === "unreadable" ? problem.message : problem.brief;
  if (!manifest) return files.size > 0 ? undefined : "there is nothing in it";
  for (const { file, storedBytes } of manifest.files) {
    const found = files.get(file);
    if (!found) return `${file} is missing`;
    if (found.bytes !== storedBytes) return `${file} has ${found.bytes} bytes instead of ${storedBytes}`;
  }
  return files.has(SNAPSHOT.sums) ? undefined : `${SNAPSHOT.sums} is missing`;
}
