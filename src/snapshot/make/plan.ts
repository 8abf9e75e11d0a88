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

/** What a snapshot of the format qcow2 is to hold. */
export interface SnapshotPlan {
  /** The snapshot whose changes it holds; absent: everything. */
  parent: string | undefined;
  /** What is copied of each disk, by its name. */
  only: ReadonlyMap<string, CopyRequest["only"]>;
}

/** A bitmap in a working disk notes what was written since the snapshot with this id. */
export const bitmapOf = (id: string): string => `vm-${id}`;
export const isOurBitmap = (name: string): boolean => /^vm-[0-9a-f]{16}$/.test(name);

const FULL: SnapshotPlan = { parent: undefined, only: new Map() };

/**
 * Chooses the newest snapshot that all disks know their changes to: by sound bitmaps, or (with the VM off) by being
 * images of changes to it.
 * @param live the images are a running qemu's: only its bitmaps tell
 */
export function planImages(
  vm: Vm,
  sources: readonly Source[],
  disks: readonly OpenDisk[],
  live: boolean,
): SnapshotPlan {
  if (disks.length === 0) return FULL;
  const known = inspectSnapshots(vm.hostdir);
  const usable = known.filter((item) => canBuildOn(item, disks));
  const longest = vm.settings.SNAPSHOT_CHAIN;
  for (const { snapshot } of usable.toReversed()) {
    const bitmap = bitmapOf(snapshot.manifest!.id!);
    const noted = disks.every(({ bitmaps }) => bitmaps.some(({ name, sound }) => name === bitmap && sound));
    // Not an older one instead: the changes to that would grow for ever.
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

/** Changes to a snapshot; where its chain is as long as it may be, everything. */
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

/** Is it whole as far as can be seen, and has it the same disks? */
function canBuildOn({ snapshot, facts }: SnapshotInfo, disks: readonly OpenDisk[]): boolean {
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

/** How many snapshots one needs, itself among them; no more than `limit` are counted. */
function chainLength(name: string, all: readonly SnapshotInfo[], limit: number): number {
  const parents = new Map(all.map(({ facts }) => [facts.name, facts.parent]));
  let length = 0;
  for (let at: string | null | undefined = name; at && length < limit; at = parents.get(at)) length++;
  return length;
}
