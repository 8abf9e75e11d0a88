import { basename, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { realPath } from "../lib/read-file.ts";
import { readOwnHeader } from "../qemu/image-header.ts";
import { WORK } from "../store/layout.ts";
import { findSnapshotDiskDamage } from "../store/snapshot-damage.ts";
import { parseBackingName } from "../store/snapshot-images.ts";
import { chainOf, findBeside, requireIntact } from "../store/snapshot-intact.ts";
import { findMismatch } from "../store/snapshot-parent.ts";
import { findSnapshot } from "../store/snapshots.ts";
import type { Workdir } from "../store/workdir.ts";

/**
 * @throws 74 where another snapshot has the name of the one that was restored, or it or one that it builds on is damaged as
 *   far as the quick look shows: the disk would be garbage
 */
export function requireRecorded({ dir, mark: { onSnapshot } }: Workdir, name: string, disk: string): void {
  const hostdir = realPath(join(dir, WORK.hostLink))!;
  const snapshot = findSnapshot(hostdir, name);
  const mismatch = onSnapshot?.name === name ? findMismatch(onSnapshot, snapshot) : undefined;
  const damage = mismatch ?? findSnapshotDiskDamage(snapshot, findBeside(hostdir));
  if (damage === undefined) return;
  throw new VmError(
    "io",
    `the snapshot ${name} below the disk ${disk} ${mismatch ?? `is damaged: ${damage}`}`,
    { hint: RIGHT_ONE },
  );
}

const RIGHT_ONE = "restore another snapshot, or put the right one back";

/**
 * Compares the snapshots below working disks with their checksums, before what is in them is stored once more.
 * @throws 74 naming the first that is damaged
 */
export async function requireIntactBelow(
  hostdir: string,
  disks: readonly string[],
  low: boolean,
): Promise<void> {
  const names = disks.map((disk) => parseBackingName(readOwnHeader(disk).backingName, basename(disk)));
  for (const name of new Set(names)) {
    if (name === undefined) continue;
    const chain = chainOf(hostdir, findSnapshot(hostdir, name));
    await requireIntact(chain, { cannot: "cannot back up", hint: RIGHT_ONE, images: true, low });
  }
}
