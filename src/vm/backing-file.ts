import { statSync } from "node:fs";
import { basename, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { formatTimestamp } from "../lib/time.ts";
import type { ReadImage } from "../machine/types.ts";
import { log } from "../lib/log.ts";
import { dropBrokenBitmaps } from "../qemu/bitmaps.ts";
import { identifyBlockDevice } from "../qemu/block-device.ts";
import { readImageHeader, readOwnHeader, refuseExternalReference } from "../qemu/image-header.ts";
import { shellQuote } from "../lib/shell.ts";
import type { BaseRecord } from "../store/mark-types.ts";
import { diskName, HOST, WORK } from "../store/layout.ts";
import { lstatOf, requireReadableFile } from "../lib/read-file.ts";
import type { Workdir } from "../store/workdir.ts";
import { findSnapshotImage, parseBackingName } from "../store/snapshot-images.ts";

const ALTERNATIVE = "or restore a snapshot, which does not need it";

/** Builds the record of a disk's backing file. */
export function recordBackingFile({ path, format, blockDevice }: ReadImage): BaseRecord {
  if (blockDevice) return { path, format, ...identifyBlockDevice(path) };
  const { size, mtime } = statSync(path);
  return { path, format, bytes: size, modified: mtime.toISOString() };
}

/**
 * The backing file of a working disk: a snapshot's image, or the image that it was created on. Undefined if the recorded
 * one is another.
 * @param disk absolute, a qcow2 image with a backing file
 * @throws 66 if the backing file is missing, 74 if it has changed, which corrupts the overlay
 */
export function resolveBackingFile(work: Workdir, disk: string): ReadImage | undefined {
  const { backingName } = readOwnHeader(disk);
  const snapshot = parseBackingName(backingName, basename(disk));
  if (snapshot !== undefined) {
    const image = findSnapshotImage(join(work.dir, WORK.hostLink, HOST.backups), snapshot, basename(disk));
    // Synchronous, and most disks have none.
    const { requireRecorded } = require("./backing-snapshot.ts") as typeof import("./backing-snapshot.ts");
    requireRecorded(work, snapshot, disk);
    return image;
  }
  const cloned = parseBackingName(backingName, basename(disk), WORK.baseLink);
  if (cloned !== undefined) {
    const { resolveCloneBase } = require("./clone-base.ts") as typeof import("./clone-base.ts");
    return resolveCloneBase(work, cloned, disk);
  }
  const remote = parseBackingName(backingName, basename(disk), WORK.repositoryLink);
  if (remote !== undefined) {
    const { resolveRemoteBase } = require("./arriving.ts") as typeof import("./arriving.ts");
    return resolveRemoteBase(work, remote, disk);
  }
  const { base } = work.mark;
  if (!base || disk !== join(work.dir, diskName(0)) || backingName !== base.path) return undefined;
  if (!lstatOf(base.path))
    throw new VmError("noInput", `the backing file ${base.path} of the disk ${disk} is missing`, {
      hint: `put it back (a symlink is enough), ${ALTERNATIVE}`,
    });
  requireReadableFile(base.path, "the disk's backing file");
  const image: ReadImage = {
    path: base.path,
    format: base.format,
    blockDevice: statSync(base.path).isBlockDevice(),
  };
  const now = recordBackingFile(image);
  const header = readImageHeader(base.path);
  if (
    now.bytes === base.bytes &&
    now.modified === base.modified &&
    // Earlier versions recorded neither of a block device: `bytes` is undefined then.
    now.device === base.device &&
    now.bytes !== undefined &&
    header.format === base.format &&
    !header.refersTo
  )
    return image;
  const then = base.modified
    ? `modified ${formatTimestamp(new Date(base.modified))}, ${base.bytes} bytes`
    : "as it was";
  const same = base.modified
    ? `; if its content is the same: touch -d ${base.modified} ${shellQuote(base.path)}`
    : "";
  throw new VmError("io", `the backing file ${base.path} of the disk ${disk} has changed`, {
    hint: `put the old image back (${then}), ${ALTERNATIVE}${same}`,
  });
}

/**
 * As `resolveBackingFile`, for a disk with or without a backing file.
 * @throws 74 also if it refers to a file that is not recorded
 */
export function requireOwnDisk(work: Workdir, disk: string): ReadImage | undefined {
  const linked = readOwnHeader(disk).refersTo === "backing file";
  const base = linked ? resolveBackingFile(work, disk) : undefined;
  if (!base) refuseExternalReference(disk);
  return base;
}

/** See {@link dropBrokenBitmaps}. @param disk a working disk that no process has open */
export function repairDiskBitmaps(disk: string): void {
  if (dropBrokenBitmaps(disk))
    log.warn(`removed an unreadable dirty bitmap from ${disk}: the next snapshot will be a full one`);
}
