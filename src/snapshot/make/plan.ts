import { join } from "node:path";
import { readOwnHeader, readVirtualBytes } from "../../qemu/image-header.ts";
import { isDiskName } from "../../store/layout.ts";
import type { Vm } from "../../vm/find.ts";
import { inspectSnapshots, type SnapshotInfo } from "../../store/snapshot-info.ts";
import { findDamage } from "../../store/snapshot-damage.ts";
import { parseBackingName } from "../../store/snapshot-images.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import type { CopyRequest } from "../../live/block-jobs.ts";
import type { OpenDisk, Source } from "../../live/disk-source.ts";

/** The contents of a new qcow2 snapshot. */
export interface SnapshotPlan {
  /** Absent: a full snapshot. */
  parent: string | undefined;
  /** Clusters to copy, by disk name. */
  only: ReadonlyMap<string, CopyRequest["only"]>;
}

/** Name of the dirty bitmap for changes since the snapshot with this id. */
export const bitmapOf = (id: string): string => `vm-${id}`;
export const isSnapshotBitmap = (name: string): boolean => /^vm-[0-9a-f]{16}$/.test(name);

const FULL: SnapshotPlan = { parent: undefined, only: new Map() };

/**
 * Chooses the parent: the newest snapshot for which all disks have an intact bitmap, or (VM off) whose images are their
 * backing files.
 * @param live the images are open in a running qemu: only bitmaps count
 */
export function planImages(
  vm: Vm,
  sources: readonly Source[],
  disks: readonly OpenDisk[],
  live: boolean,
): SnapshotPlan {
  if (disks.length === 0) return FULL;
  const known = inspectSnapshots(vm.hostdir);
  const usable = known.filter((item) => canBeParent(item, disks));
  const longest = vm.settings.SNAPSHOT_CHAIN;
  for (const { snapshot } of usable.toReversed()) {
    const bitmap = bitmapOf(snapshot.manifest!.id!);
    const noted = disks.every(({ bitmaps }) => bitmaps.some(({ name, sound }) => name === bitmap && sound));
    // An older one is no alternative: the changes since it would grow for ever.
    if (noted && isUndamaged(snapshot, known))
      return planIncremental(snapshot.name, disks, { bitmap }, known, longest);
  }
  if (live) return FULL;
  const own = sources.filter(({ disk }) => disk);
  const below = new Set(own.map(({ path, name }) => parseBackingName(readOwnHeader(path).backingName, name)));
  const [only] = below;
  const base = usable.find(({ facts }) => facts.name === only);
  return below.size === 1 && base && isUndamaged(base.snapshot, known)
    ? planIncremental(only!, disks, "top", known, longest)
    : FULL;
}

const isUndamaged = (snapshot: Snapshot, all: readonly SnapshotInfo[]): boolean =>
  findDamage(snapshot, (name) => all.find(({ facts }) => facts.name === name)?.snapshot) === undefined;

/** An incremental snapshot; a full one if the parent's chain has the maximum length. */
const planIncremental = (
  parent: string,
  disks: readonly OpenDisk[],
  only: CopyRequest["only"],
  all: readonly SnapshotInfo[],
  longest: number,
): SnapshotPlan =>
  chainLength(parent, all, longest) < longest
    ? { parent, only: new Map(disks.map(({ name }) => [name, only])) }
    : FULL;

/** Has the snapshot the same disks, and no obvious damage? */
function canBeParent({ snapshot, facts }: SnapshotInfo, disks: readonly OpenDisk[]): boolean {
  const { manifest, dir } = snapshot;
  if (!manifest?.id || manifest.format !== "qcow2" || facts.problem !== null) return false;
  const stored = manifest.files.filter(({ name }) => isDiskName(name));
  return (
    stored.length === disks.length &&
    disks.every((disk) => {
      const file = stored.find(({ name }) => name === disk.name);
      return (
        file?.virtualBytes === disk.virtualBytes &&
        readVirtualBytes(join(dir, file.file)) === disk.virtualBytes
      );
    })
  );
}

/** Counts a snapshot and its parents, up to `limit`. */
function chainLength(name: string, all: readonly SnapshotInfo[], limit: number): number {
  const parents = new Map(all.map(({ facts }) => [facts.name, facts.parent]));
  let length = 0;
  for (let at: string | null | undefined = name; at && length < limit; at = parents.get(at)) length++;
  return length;
}
