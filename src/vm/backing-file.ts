import { statSync } from "node:fs";
import { basename, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { formatTimestamp } from "../lib/time.ts";
import type { ReadImage } from "../machine/types.ts";
import { log } from "../lib/log.ts";
import { dropBrokenBitmaps } from "../qemu/bitmaps.ts";
import { identifyBlockDevice } from "../qemu/block-device.ts";
import { readImageHeader, readOwnHeader, refuseForeignParts } from "../qemu/image-header.ts";
import { shellQuote } from "../lib/shell.ts";
import type { BaseRecord } from "../store/mark-types.ts";
import { diskName, HOST, WORK } from "../store/layout.ts";
import { lstatOf, realPath, requireReadableFile } from "../lib/read-file.ts";
import type { Workdir } from "../store/workdir.ts";
import { findSnapshotImage, parseBackingName } from "../store/snapshot-images.ts";
import { findSnapshotDiskDamage } from "../store/snapshot-damage.ts";
import { chainOf, findBeside, requireIntact } from "../store/snapshot-intact.ts";
import { findMismatch } from "../store/snapshot-parent.ts";
import { findSnapshot } from "../store/snapshots.ts";

const INSTEAD = "or restore a snapshot, which needs no other image";

/** What is remembered of an image that a disk lies over. */
export function recordBase({ path, format, blockDevice }: ReadImage): BaseRecord {
  if (blockDevice) return { path, format, ...identifyBlockDevice(path) };
  const { size, mtime } = statSync(path);
  return { path, format, bytes: size, modified: mtime.toISOString() };
}

/**
 * The image that this disk of ours lies over: a snapshot's, or the one it was created over. Undefined when we made it
 * over none, or over another one.
 * @param disk absolute, a qcow2 image with a backing file
 * @throws 66 when the image below is gone, 74 when it is not as it was: the disk would be garbage
 */
export function resolveBackingFile(work: Workdir, disk: string): ReadImage | undefined {
  const { backingName } = readOwnHeader(disk);
  const snapshot = parseBackingName(backingName, basename(disk));
  if (snapshot !== undefined) {
    const image = findSnapshotImage(join(work.dir, WORK.hostLink, HOST.backups), snapshot, basename(disk));
    requireRecorded(work, snapshot, disk);
    return image;
  }
  const { base } = work.mark;
  if (!base || disk !== join(work.dir, diskName(0)) || backingName !== base.path) return undefined;
  if (!lstatOf(base.path))
    throw new VmError(
      "noInput",
      `the image ${base.path} is gone: the disk ${disk} holds only what differs from it`,
      {
        hint: `put it back (a link there will do), ${INSTEAD}`,
      },
    );
  requireReadableFile(base.path, "the image below the disk");
  const image: ReadImage = {
    path: base.path,
    format: base.format,
    blockDevice: statSync(base.path).isBlockDevice(),
  };
  const now = recordBase(image);
  const header = readImageHeader(base.path);
  if (
    now.bytes === base.bytes &&
    now.modified === base.modified &&
    // Of a device that an earlier version has noted nothing is known.
    now.device === base.device &&
    now.bytes !== undefined &&
    header.format === base.format &&
    !header.refersTo
  )
    return image;
  const then = base.modified
    ? `as of ${formatTimestamp(new Date(base.modified))}, ${base.bytes} bytes`
    : "as it was";
  const same = base.modified
    ? `; if nothing in it has changed: touch -d ${base.modified} ${shellQuote(base.path)}`
    : "";
  throw new VmError(
    "io",
    `the image ${base.path} has changed: the disk ${disk} holds only what differs from the old one`,
    {
      hint: `put the old image back (${then}), ${INSTEAD}${same}`,
    },
  );
}

/**
 * @throws 74 where another snapshot has the name of the one that was restored, or it or one that it builds on is damaged as
 *   far as the quick look shows: the disk would be garbage
 */
function requireRecorded({ dir, mark: { onSnapshot } }: Workdir, name: string, disk: string): void {
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

/**
 * The same for a disk that may lie over none.
 * @throws 74 besides when it claims to continue in a file that we did not put there
 */
export function requireOwnDisk(work: Workdir, disk: string): ReadImage | undefined {
  const linked = readOwnHeader(disk).refersTo === "backing file";
  const base = linked ? resolveBackingFile(work, disk) : undefined;
  if (!base) refuseForeignParts(disk);
  return base;
}

/** See {@link dropBrokenBitmaps}. @param disk a working disk that nobody has open */
export function repairDiskBitmaps(disk: string): void {
  if (dropBrokenBitmaps(disk))
    log.warn(
      `what ${disk} noted of changes since the last snapshot is unreadable, and dropped: the next snapshot holds everything`,
    );
}
