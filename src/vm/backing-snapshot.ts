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
 * @throws 74 if another snapshot has the name of the restored one, or if a quick check finds it or a parent damaged: both
 *   corrupt the overlay
 */
export function requireRecorded({ dir, mark: { onSnapshot } }: Workdir, name: string, disk: string): void {
  const hostdir = realPath(join(dir, WORK.hostLink))!;
  const snapshot = findSnapshot(hostdir, name);
  const mismatch = onSnapshot?.name === name ? findMismatch(onSnapshot, snapshot) : undefined;
  const damage = mismatch ?? findSnapshotDiskDamage(snapshot, findBeside(hostdir));
  if (damage === undefined) return;
  throw new VmError(
    "io",
    `the snapshot ${name}, backing file of the disk ${disk}, ${mismatch ?? `is damaged: ${damage}`}`,
    { hint: HINT_RESTORE },
  );
}

const HINT_RESTORE = "restore another snapshot, or put the original one back";

/**
 * Verifies the checksums of snapshots that are backing files of working disks, before their data is copied.
 * @throws 74 naming the first damaged one
 */
export async function requireIntactBackingFiles(
  hostdir: string,
  disks: readonly string[],
  low: boolean,
): Promise<void> {
  const names = disks.map((disk) => parseBackingName(readOwnHeader(disk).backingName, basename(disk)));
  for (const name of new Set(names)) {
    if (name === undefined) continue;
    const chain = chainOf(hostdir, findSnapshot(hostdir, name));
    await requireIntact(chain, { cannot: "cannot back up", hint: HINT_RESTORE, images: true, low });
  }
}
