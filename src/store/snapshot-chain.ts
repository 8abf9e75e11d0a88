import { findMismatch } from "./snapshot-parent.ts";
import { isSnapshotName, type Snapshot } from "./snapshots.ts";

/**
 * The parents of a snapshot, nearest first: by name, and by the id and checksum that their children recorded.
 * @returns them, and the first error in the chain itself
 */
export function followChain(
  snapshot: Snapshot,
  find: (name: string) => Snapshot | undefined,
): { parents: Snapshot[]; problem: string | undefined } {
  const parents: Snapshot[] = [];
  const seen = new Set([snapshot.name]);
  for (let at = snapshot; at.manifest?.parent !== undefined; at = parents.at(-1)!) {
    const { parent, parentId, parentSum, format } = at.manifest;
    const of = at === snapshot ? "its parent" : `${at.name}'s parent`;
    const fail = (reason: string) => ({ parents, problem: `${of} ${JSON.stringify(parent)} ${reason}` });
    if (format !== "qcow2") return fail(`is named, but ${format} snapshots have none`);
    if (!isSnapshotName(parent)) return fail("is no snapshot's name");
    if (seen.has(parent)) return fail("depends on it: a cycle");
    const found = find(parent);
    if (!found) return fail("is missing");
    if (found.manifest && found.manifest.format !== "qcow2") return fail("is no qcow2 snapshot");
    if (!found.manifest && !found.problem) return fail("is a snapshot of the earlier program");
    const mismatch = findMismatch({ id: parentId, sum: parentSum }, found);
    if (mismatch !== undefined) return fail(mismatch);
    seen.add(parent);
    parents.push(found);
  }
  return { parents, problem: undefined };
}
