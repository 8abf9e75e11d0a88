import { basename, join } from "node:path";
import { commandLineFor } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import type { ReadImage } from "../machine/types.ts";
import type { CloneRecord } from "../store/mark-types.ts";
import { HOST, WORK } from "../store/layout.ts";
import { findSnapshotImage } from "../store/snapshot-images.ts";
import type { Workdir } from "../store/workdir.ts";
import { requireSameSnapshot } from "./backing-snapshot.ts";

/** Why a linked clone has no base; undefined if it has, or is none. */
export function findMissingBase({ dir, mark: { clone } }: Workdir): VmError | undefined {
  if (!clone?.base) return undefined;
  const place = join(clone.directory, HOST.backups, clone.base.name);
  if (lstatOf(place)) return undefined;
  const { findMovedSource } = require("./moved-source.ts") as typeof import("./moved-source.ts");
  const moved = findMovedSource(realPath(join(dir, WORK.hostLink)) ?? dir, clone);
  if (moved !== undefined)
    return new VmError("noInput", `${describeMissing(clone, place)}; it is in ${moved} now`, {
      hint: `have its clones find it there: ${commandLineFor(moved, "rename", moved)}`,
    });
  return new VmError("noInput", describeMissing(clone, place), {
    hint: `move it back; or have its clones find it in its new directory: ${commandLineFor("NEWDIR", "rename", "NEWDIR")}; or restore a snapshot of this VM, which does not need it`,
  });
}

const describeMissing = ({ directory, uuid, base }: CloneRecord, place: string): string =>
  lstatOf(directory)
    ? `this linked clone needs the snapshot ${base!.name} of the VM in ${directory}, which is missing: ${place}`
    : `this linked clone needs the snapshot ${base!.name} of a VM that is missing: ${directory}${uuid === undefined ? "" : ` (UUID ${uuid})`}`;

/**
 * The backing file of a linked clone's disk, with its own ones.
 * @param name of the snapshot, from the disk's header
 * @returns undefined if another one is recorded
 * @throws 66 if it is missing, 74 if it is another snapshot or damaged
 */
export function resolveCloneBase(work: Workdir, name: string, disk: string): ReadImage | undefined {
  const { clone } = work.mark;
  if (clone?.base?.name !== name) return undefined;
  const missing = findMissingBase(work);
  if (missing) throw missing;
  const image = findSnapshotImage(join(clone.directory, HOST.backups), name, basename(disk));
  requireSameSnapshot(clone.directory, name, clone.base, disk);
  return image;
}
