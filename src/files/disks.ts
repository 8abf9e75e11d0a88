import { join } from "node:path";
import { throwIfInterrupted } from "../process/signals.ts";
import { VmError } from "../lib/errors.ts";
import { inspectImage } from "../qemu/image-header.ts";
import { createImage } from "../qemu/new-image.ts";
import type { Disk, ReadImage } from "../machine/types.ts";
import { requireSpace } from "../store/files.ts";
import { diskNumber, isDiskName } from "../store/layout.ts";
import { newMark } from "../store/mark-types.ts";
import { findDamage } from "../store/snapshot-damage.ts";
import { findBeside } from "../store/snapshot-intact.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { makeTemporary } from "../store/temporary.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { damagedSnapshot, listImages } from "../snapshot/restore-images.ts";
import { fillStage, listStored } from "../snapshot/restore.ts";

/** A directory in TMPDIR for one run of the rescue, and for throw-away disks. */
export interface Scratch extends Disposable {
  dir: string;
  work: Workdir;
}

export function openScratch(context: Context, vm: Vm): Scratch {
  const temporary = makeTemporary(vm.hostdir, context.tmpdir);
  const { dir } = temporary;
  return {
    dir,
    work: { state: "present", dir, inplace: false, mark: newMark() },
    [Symbol.dispose]: () => temporary[Symbol.dispose](),
  };
}

/** The VM as it was without its disks and without working files: the rescue gets the snapshot's. */
export const detached = (vm: Vm, work: Workdir): Vm => ({
  ...vm,
  work,
  settings: { ...vm.settings, IMAGES: [] },
});

/**
 * The disks of a snapshot, to be mounted: what the mounting writes, as a journal's replay, goes to throw-away files
 * in the scratch directory.
 * @throws 73 without space in TMPDIR, 74 if the snapshot is damaged
 */
export async function openSnapshotDisks(
  context: Context,
  hostdir: string,
  snapshot: Snapshot,
  { dir }: Scratch,
): Promise<Disk[]> {
  if (snapshot.problem) throw snapshot.problem;
  const damage = findDamage(snapshot, findBeside(hostdir), { ram: false });
  if (damage !== undefined) throw damagedSnapshot(snapshot, damage);
  const packed = listStored(snapshot).filter(({ name }) => isDiskName(name));
  const images = listImages(hostdir, snapshot);
  if (packed.length > 0) {
    const needed = packed.reduce((sum, { neededBytes }) => sum + neededBytes, 0);
    requireSpace(context.tmpdir, needed, `unpack ${snapshot.name}`, "tmpdir");
    await fillStage(context, snapshot, packed, { dir }, false, "unpack");
  }
  await Promise.all(
    images.map(({ name, virtualBytes }) => createImage(join(dir, name), { sizeBytes: virtualBytes })),
  );
  throwIfInterrupted();
  return [...packed.map(({ name }) => ({ name, image: undefined })), ...images]
    .map(({ name, image }) => throwAwayDisk(diskNumber(name)!, join(dir, name), image))
    .toSorted((a, b) => a.number - b.number);
}

const throwAwayDisk = (number: number, path: string, base: ReadImage | undefined): Disk => ({
  number,
  bus: "VIRT",
  format: "qcow2",
  path,
  serial: `disk-${number}`,
  backingAllowed: false,
  base,
});

/**
 * Throw-away overlays on disks that are only read.
 * @throws 74 for a disk whose size, or whose backing file, only qemu can tell
 */
export function overlayDisks(disks: readonly Disk[], { dir }: Scratch, cannot: string): Promise<Disk[]> {
  return Promise.all(
    disks.map(async ({ number, path, format, blockDevice = false, base, backingAllowed }) => {
      const sizeBytes =
        backingAllowed && format !== "raw" ? undefined : inspectImage(path, format)?.virtualBytes;
      if (sizeBytes === undefined)
        throw new VmError("io", `${cannot}: ${path} is ${format}, which cannot be read without a change`);
      const overlay = join(dir, `disk-${number}`);
      await createImage(overlay, { sizeBytes });
      return throwAwayDisk(number, overlay, { path, format, blockDevice, base });
    }),
  );
}
