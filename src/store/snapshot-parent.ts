import { reasonOf } from "../lib/errors.ts";
import { SNAPSHOT } from "./layout.ts";
import type { Manifest } from "./manifest.ts";
import type { SnapshotRecord } from "./mark-types.ts";
import type { Snapshot } from "./snapshots.ts";
import { readSums } from "./checksums.ts";
import { sha256 } from "../lib/crypto.ts";

/**
 * SHA-256 over the lines that SHA256SUMS has of a snapshot's manifest and stored files, by name: a sum over its content,
 * whatever its description.
 * @returns undefined where one of these lines is missing @throws as `readSums`
 */
export function contentSum({ dir, manifest }: Snapshot): string | undefined {
  const sums = readSums(dir);
  const names = [SNAPSHOT.manifest, ...(manifest?.files.map(({ file }) => file) ?? [])].toSorted();
  if (!manifest || !names.every((name) => sums.has(name))) return undefined;
  const lines = names.map((name) => `${sums.get(name)}  ${name}\n`).join("");
  return sha256(lines);
}

/** What is noted of a snapshot that disks build on; undefined for those of earlier versions, without an id or sums. */
export function recordSnapshot(snapshot: Snapshot): SnapshotRecord | undefined {
  const { name, manifest } = snapshot;
  const sum = contentSum(snapshot);
  if (manifest?.id === undefined || sum === undefined) return undefined;
  return { name, id: manifest.id, sum };
}

/** The same, as a child's manifest has it. */
export function parentKeys(snapshot: Snapshot): Pick<Manifest, "parent" | "parentId" | "parentSum"> {
  const record = recordSnapshot(snapshot);
  return { parent: snapshot.name, ...(record && { parentId: record.id, parentSum: record.sum }) };
}

/**
 * Is a snapshot still the one that was noted?
 * @returns why not, to follow its name: `is another snapshot (id …, not …)`; undefined where it is, or nothing was noted
 */
export function findMismatch(
  noted: { id?: string | undefined; sum?: string | undefined },
  snapshot: Snapshot,
): string | undefined {
  const { manifest } = snapshot;
  // Why that cannot be read is said elsewhere.
  if (!manifest) return undefined;
  if (noted.id !== undefined && manifest.id !== noted.id)
    return `is another snapshot than the one it was made on (id ${manifest.id ?? "none"}, not ${noted.id})`;
  if (noted.sum === undefined) return undefined;
  try {
    const sum = contentSum(snapshot);
    if (sum === noted.sum || manifest.formerSums?.includes(noted.sum)) return undefined;
  } catch (error) {
    return `cannot be read: ${reasonOf(error)}`;
  }
  return "has other content than when it was made on it (the checksums differ)";
}
