import { join } from "node:path";
import type { Consistency } from "./mark-types.ts";
import { lstatOf } from "../lib/read-file.ts";
import { allocatedBytes, listDirectory } from "./files.ts";
import { isDiskName, SNAPSHOT, STATE } from "./layout.ts";
import type { SnapshotFormat } from "../machine/types.ts";
import { parentsOf } from "./snapshot-dependents.ts";
import { lastName, listSnapshots, readDescription, type Snapshot } from "./snapshots.ts";

/** Facts about a snapshot without reading its disk images, as `--json` prints them. */
export interface SnapshotFacts {
  name: string;
  made: Date;
  /** LAST refers to it. */
  last: boolean;
  protected: boolean;
  format: SnapshotFormat;
  parent: string | null;
  /** Null for snapshots of the earlier program, which records neither. */
  consistency: Consistency | null;
  /** Virtual size of all disks. */
  guestBytes: number | null;
  /** Size of the guest's RAM in it; null without. */
  ramBytes: number | null;
  /** Allocated bytes of the snapshot itself. */
  addedBytes: number;
  description: string;
  /** Why it cannot be restored, as far as a quick check finds: no checksums are computed. */
  problem: string | null;
  /** The only problem is that a newer version made it: it may be intact. */
  newer?: true;
  files: SnapshotFile[];
}

export interface SnapshotFile {
  name: string;
  bytes: number;
  allocatedBytes: number;
}

/** A snapshot with its facts. */
export interface SnapshotInfo {
  snapshot: Snapshot;
  facts: SnapshotFacts;
}

/** All snapshots of a VM, oldest first. */
export function inspectSnapshots(hostdir: string): SnapshotInfo[] {
  const last = lastName(hostdir);
  // A snapshot may be removed meanwhile: a list takes no lock.
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

/** A snapshot is damaged if a parent is. */
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
    if (!parent) item.problem ??= `its parent ${item.parent} is missing`;
    else if (parent.problem !== null) item.problem ??= `its parent ${parent.name} is damaged`;
    else if (chain.indexOf(parent) >= 0 && chain.indexOf(parent) <= chain.indexOf(item))
      item.problem ??= `it depends on itself through ${parent.name}`;
  }
}

/** Not damaged, but in a format that this version does not know. */
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
    ramBytes: manifest?.files.find((file) => file.name === STATE.ram)?.bytes ?? null,
    addedBytes: files.reduce((sum, file) => sum + file.allocatedBytes, 0),
    description: byName.get(SNAPSHOT.description)?.bytes ? readDescription(dir) : "",
    problem: problemOf(snapshot, byName) ?? null,
    ...(isNewer(snapshot) && { newer: true }),
    files,
  };
}

/** None if the directory cannot be read, which `problem` reports. */
function namesIn(dir: string): string[] {
  try {
    return listDirectory(dir);
  } catch {
    return [];
  }
}

function problemOf({ manifest, problem }: Snapshot, files: Map<string, SnapshotFile>): string | undefined {
  // That of a file names the file, which is not the snapshot.
  if (problem) return problem.reason === "unreadable" ? problem.message : problem.brief;
  if (!manifest) return files.size > 0 ? undefined : "it is empty";
  for (const { file, storedBytes } of manifest.files) {
    const found = files.get(file);
    if (!found) return `${file} is missing`;
    if (found.bytes !== storedBytes) return `${file} has ${found.bytes} bytes instead of ${storedBytes}`;
  }
  return files.has(SNAPSHOT.sums) ? undefined : `${SNAPSHOT.sums} is missing`;
}
