import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import type { ReadImage } from "../machine/types.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { readVirtualBytes } from "../qemu/image-header.ts";
import { convertImage, measureImage } from "../qemu/img.ts";
import { addBitmap, createImage } from "../qemu/new-image.ts";
import { lstatOf, syncFile } from "../store/files.ts";
import { HOST, imageName, isDiskName, SNAPSHOT } from "../store/layout.ts";
import { bitmapOf } from "./make/plan.ts";
import type { Context } from "../vm/context.ts";
import { backingNameOf, findSnapshotImage } from "../store/snapshot-images.ts";
import { findBeside } from "../store/snapshot-intact.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { followChain } from "../store/snapshot-chain.ts";

/** A disk to restore from an image, with those that the image is changes to. */
export interface ImageJob {
  /** `disk-0.img` */
  name: string;
  image: ReadImage;
  virtualBytes: number;
}

/**
 * The disks that a snapshot holds as images; none of the format gz. Sizes, headers and parents are looked at, here
 * and in all that it builds on; not the contents, which is what `verify` does.
 * @throws 74 when something is not as it was
 */
export function listImages(hostdir: string, snapshot: Snapshot): ImageJob[] {
  const images = snapshot.manifest?.files.filter(({ file }) => !file.endsWith(SNAPSHOT.gz)) ?? [];
  if (images.length === 0) return [];
  const { parents, problem } = followChain(snapshot, findBeside(hostdir));
  if (problem !== undefined) throw damaged(snapshot, problem);
  for (const item of [snapshot, ...parents]) checkSizes(item);
  return images.map(({ name, file, virtualBytes }) => {
    if (!isDiskName(name) || file !== imageName(name))
      throw damaged(snapshot, `${file} is none of its disks`);
    const image = findSnapshotImage(join(hostdir, HOST.backups), snapshot.name, name);
    const size = readVirtualBytes(image.path);
    if (size === undefined || size !== virtualBytes)
      throw damaged(snapshot, `${file} holds a disk of ${size} bytes instead of ${virtualBytes}`);
    return { name, image, virtualBytes: size };
  });
}

function checkSizes(snapshot: Snapshot): void {
  if (snapshot.problem) throw snapshot.problem;
  for (const { file, storedBytes } of snapshot.manifest?.files ?? []) {
    const stats = lstatOf(join(snapshot.dir, file));
    if (!stats?.isFile()) throw damaged(snapshot, `${file} is missing or no file`);
    if (stats.size !== storedBytes)
      throw damaged(snapshot, `${file} has ${stats.size} bytes instead of ${storedBytes}`);
  }
}

const damaged = ({ name }: Snapshot, reason: string): VmError =>
  new VmError("io", `the snapshot ${name} is damaged: ${reason}`, {
    hint: "the working files were not touched; try an older snapshot",
  });

/** Room that free-standing disks take. */
export async function measureCopies(jobs: readonly ImageJob[]): Promise<number> {
  let needed = 0;
  for (const { image } of jobs) needed += (await measureImage(image, image.base)).neededBytes;
  return needed;
}

/**
 * Makes the disks: images of changes to the snapshot's, or (`copy`) free-standing ones. Both note from now on what is
 * written, for the next snapshot.
 */
export async function fillImages(
  context: Context,
  snapshot: Snapshot,
  jobs: readonly ImageJob[],
  dir: string,
  copy: boolean,
): Promise<void> {
  for (const { name, image, virtualBytes } of jobs) {
    const path = join(dir, name);
    if (copy) {
      const meter = context.meter(`restore ${snapshot.name}: ${name}`, virtualBytes);
      const follow = (part: number): void => meter.update(part * virtualBytes);
      await convertImage(image, path, follow, image.base).finally(() => meter.finish());
    } else {
      await createImage(path, { sizeBytes: virtualBytes, backing: backingNameOf(snapshot.name, name) });
    }
    const { id } = snapshot.manifest!;
    if (id !== undefined) await addBitmap(path, bitmapOf(id));
    await syncFile(path);
    throwIfInterrupted();
  }
}
