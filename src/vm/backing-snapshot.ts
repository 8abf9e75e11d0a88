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
import type { SnapshotRecord } from "../store/mark-types.ts";
import type { Work, Workdir } from "../store/workdir.ts";

/**
 * @throws 74 if another snapshot has the name of the restored one, or if a quick check finds it or a parent damaged: both
 *   corrupt the overlay
 */
export const requireRecorded = ({ dir, mark: { onSnapshot } }: Workdir, name: string, disk: string): void =>
  requireSameSnapshot(realPath(join(dir, WORK.hostLink))!, name, onSnapshot, disk);

/** The same for a snapshot in any VM's directory. @param recorded as it was when the disk was created */
export function requireSameSnapshot(
  hostdir: string,
  name: string,
  recorded: SnapshotRecord | undefined,
  disk: string,
): void {
  const snapshot = findSnapshot(hostdir, name);
  const mismatch = recorded?.name === name ? findMismatch(recorded, snapshot) : undefined;
  const damage = mismatch ?? findSnapshotDiskDamage(snapshot, findBeside(hostdir));
  if (damage === undefined) return;
  throw new VmError(
    "io",
    `the snapshot ${name}, backing file of the disk ${disk}, ${mismatch ?? `is damaged: ${damage}`}`,
    { hint: HINT_RESTORE },
  );
}

export const HINT_RESTORE = "restore another snapshot, or put the original one back";

/**
 * Verifies the checksums of snapshots that are backing files of working disks, before their data is copied.
 * @throws 74 naming the first damaged one
 */
export async function requireIntactBackingFiles(
  { hostdir, work }: { hostdir: string; work: Work },
  disks: readonly string[],
  { low, cannot = "cannot back up" }: { low: boolean; cannot?: string },
): Promise<void> {
  const cloned = work.state === "present" ? work.mark.clone?.directory : undefined;
  const places = [[WORK.hostLink, hostdir] as const, ...(cloned ? [[WORK.baseLink, cloned] as const] : [])];
  for (const [link, directory] of places) {
    const names = disks.map((disk) =>
      parseBackingName(readOwnHeader(disk).backingName, basename(disk), link),
    );
    for (const name of new Set(names)) {
      if (name === undefined) continue;
      const chain = chainOf(directory, findSnapshot(directory, name));
      await requireIntact(chain, { cannot, hint: HINT_RESTORE, images: true, low });
    }
  }
}
