import { basename, dirname, join } from "node:path";
import { hasErrno } from "../lib/errors.ts";
import { readOwnHeader } from "../qemu/image-header.ts";
import { lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "./files.ts";
import { HOST, WORK } from "./layout.ts";
import type { Work } from "./workdir.ts";
import { ownDisks } from "./own-disks.ts";
import type { Snapshot } from "./snapshots.ts";

/**
 * What depends on a snapshot: `S1`, `the working disk disk-0.img`.
 * @param users disks of this VM and clones, by snapshot
 */
export function dependentsOf(
  name: string,
  all: readonly Snapshot[],
  users: ReadonlyMap<string, readonly string[]>,
): string[] {
  const children = all.filter((item) => parentsOf(item).includes(name)).map((item) => item.name);
  return [...children, ...(users.get(name) ?? [])];
}

/** The parents of a snapshot, from the manifest, or else from the headers of its disks. */
export function parentsOf({ dir, manifest, problem }: Snapshot): string[] {
  if (manifest) return manifest.parent === undefined ? [] : [manifest.parent];
  if (!problem || !isReadable(dir)) return [];
  const backing = listDirectory(dir).flatMap((name) =>
    lstatOf(join(dir, name))?.isFile() ? (readBackingName(join(dir, name)) ?? []) : [],
  );
  return [...new Set(backing.map((path) => basename(dirname(path))))];
}

function isReadable(dir: string): boolean {
  try {
    return listDirectory(dir).length > 0;
  } catch {
    return false;
  }
}

function readBackingName(path: string): string | undefined {
  try {
    return readOwnHeader(path).backingName;
  } catch (error) {
    if (hasErrno(error, "EACCES", "EIO", "ENOENT")) return undefined;
    throw error;
  }
}

/** Working disks whose backing file is `.host/backups/NAME/…`, by NAME. */
export function disksOnSnapshots(work: Work): Map<string, string[]> {
  const found = new Map<string, string[]>();
  if (work.state !== "present") return found;
  const begin = `${WORK.hostLink}/${HOST.backups}/`;
  for (const disk of ownDisks(work.dir)) {
    const backing = readOwnHeader(join(work.dir, disk)).backingName;
    if (!backing?.startsWith(begin)) continue;
    const name = backing.slice(begin.length).split("/")[0]!;
    found.set(name, [...(found.get(name) ?? []), `the working disk ${disk}`]);
  }
  return found;
}
