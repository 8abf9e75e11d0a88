import { basename, join } from "node:path";
import { commandLineFor } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import type { ReadImage } from "../machine/types.ts";
import type { CloneRecord } from "../store/mark-types.ts";
import { HOST, WORK } from "../store/layout.ts";
import { findSnapshotImage } from "../store/snapshot-images.ts";
import { findMismatch } from "../store/snapshot-parent.ts";
import { findSnapshot } from "../store/snapshots.ts";
import type { Workdir } from "../store/workdir.ts";
import { HINT_RESTORE, requireSameSnapshot } from "./backing-snapshot.ts";
import type { ProcessFacts } from "./context.ts";

/** The base of a linked clone, as the next command that changes the VM will find it. */
export interface FoundBase {
  /** HOSTDIR of the VM with the snapshot. */
  directory: string;
  /** The recorded one, if that VM was moved since. */
  movedFrom?: string;
  /** Why the clone cannot be run. */
  problem?: VmError;
}

/** Finds it without changing anything; undefined for a VM that is no linked clone. */
export function findBase({ cacheDirectory }: ProcessFacts, work: Workdir): FoundBase | undefined {
  const { clone } = work.mark;
  if (!clone?.base) return undefined;
  const { findMovedSource } = require("./moved-source.ts") as typeof import("./moved-source.ts");
  const moved = findMovedSource(hostdirOf(work), clone, cacheDirectory);
  // It was the right snapshot: else it would not have been found.
  if (moved !== undefined) return { directory: moved, movedFrom: clone.directory };
  const { directory } = clone;
  const problem = findMissingBase(work) ?? findOtherBase(clone);
  return { directory, ...(problem && { problem }) };
}

/** Why a linked clone has no base; undefined if it has, or is none. */
function findMissingBase({ mark: { clone } }: Workdir): VmError | undefined {
  if (!clone?.base) return undefined;
  const place = join(clone.directory, HOST.backups, clone.base.name);
  return lstatOf(place) ? undefined : missingBase(clone, place);
}

function missingBase(clone: CloneRecord, place: string): VmError {
  const back = lstatOf(clone.directory) ? "if it was moved, " : "move it back; or ";
  return new VmError("noInput", describeMissing(clone, place), {
    hint: `${back}have its clones find it in its new directory: ${commandLineFor("NEWDIR", "rename", "NEWDIR")}; or restore a snapshot of this VM, which does not need it`,
  });
}

/** Another VM at the place of the one that it was cloned from may have a snapshot of that name. */
function findOtherBase(clone: CloneRecord): VmError | undefined {
  const { directory, base } = clone;
  const { name } = base!;
  const mismatch = findMismatch(base!, findSnapshot(directory, name));
  if (mismatch === undefined) return undefined;
  if (isReplaced(clone)) return missingBase(clone, directory);
  return new VmError(
    "io",
    `this linked clone needs the snapshot ${name} of the VM in ${directory}, which ${mismatch}`,
    { hint: HINT_RESTORE },
  );
}

/** Is another VM there? */
function isReplaced(clone: CloneRecord): boolean {
  const { isSource } = require("./clones.ts") as typeof import("./clones.ts");
  return clone.uuid !== undefined && lstatOf(clone.directory) !== undefined && !isSource(clone);
}

const hostdirOf = ({ dir }: Workdir): string => realPath(join(dir, WORK.hostLink)) ?? dir;

function describeMissing(clone: CloneRecord, place: string): string {
  const { directory, uuid, base } = clone;
  const needed = `this linked clone needs the snapshot ${base!.name} of`;
  const which = uuid === undefined ? "" : ` (UUID ${uuid})`;
  if (lstatOf(directory) === undefined) return `${needed} a VM that is missing: ${directory}${which}`;
  if (isReplaced(clone)) return `${needed} a VM${which} that is no longer in ${directory}`;
  return `${needed} the VM in ${directory}, which is missing: ${place}`;
}

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
