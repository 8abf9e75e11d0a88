import { statSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import type { ReadImage } from "../machine/types.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { readVirtualBytes } from "../qemu/image-header.ts";
import { convertImage, measureImage } from "../qemu/img.ts";
import { addBitmap, createImage } from "../qemu/new-image.ts";
import { lstatOf } from "../lib/read-file.ts";
import { syncFile } from "../store/files.ts";
import { HOST, imageName, isDiskName, isStateName, SNAPSHOT, STATE, WORK } from "../store/layout.ts";
import { bitmapOf } from "./make/plan.ts";
import type { Context } from "../vm/context.ts";
import { backingNameOf, findSnapshotImage, type BackingLink } from "../store/snapshot-images.ts";
import { findBeside } from "../store/snapshot-intact.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { followChain } from "../store/snapshot-chain.ts";

/** A disk to restore from an image. */
export interface ImageJob {
  /** `disk-0.img` */
  name: string;
  image: ReadImage;
  virtualBytes: number;
}

/**
 * The disks of a qcow2 snapshot; none for gz. Checks sizes, headers and parents of it and of all its parents. The
 * contents are not read, which is what `verify` does.
 * @throws 74 if one differs from the manifest
 */
export function listImages(hostdir: string, snapshot: Snapshot): ImageJob[] {
  const images =
    snapshot.manifest?.files.filter(({ file }) => !file.endsWith(SNAPSHOT.gz) && file !== STATE.ram) ?? [];
  if (images.length === 0) return [];
  const { parents, problem } = followChain(snapshot, findBeside(hostdir));
  if (problem !== undefined) throw damagedSnapshot(snapshot, problem);
  for (const item of [snapshot, ...parents]) checkSizes(item);
  return images.map(({ name, file, virtualBytes }) => {
    if (!isDiskName(name) || file !== imageName(name))
      throw damagedSnapshot(snapshot, `${file} is not one of its disks`);
    const image = findSnapshotImage(join(hostdir, HOST.backups), snapshot.name, name);
    const size = readVirtualBytes(image.path);
    if (size === undefined || size !== virtualBytes)
      throw damagedSnapshot(snapshot, `${file} holds a disk of ${size} bytes instead of ${virtualBytes}`);
    return { name, image, virtualBytes: size };
  });
}

function checkSizes(snapshot: Snapshot): void {
  if (snapshot.problem) throw snapshot.problem;
  for (const { name, file, storedBytes } of snapshot.manifest?.files ?? []) {
    if (isStateName(name)) continue;
    const stats = lstatOf(join(snapshot.dir, file));
    if (!stats?.isFile()) throw damagedSnapshot(snapshot, `${file} is missing or no regular file`);
    if (stats.size !== storedBytes)
      throw damagedSnapshot(snapshot, `${file} has ${stats.size} bytes instead of ${storedBytes}`);
  }
}

export function damagedSnapshot({ name }: Snapshot, ...reasons: string[]): VmError {
  const why = reasons.length === 1 ? ` ${reasons[0]}` : reasons.map((line) => `\n  ${line}`).join("");
  return new VmError("io", `the snapshot ${name} is damaged:${why}`, {
    hint: "working files unchanged; try an older snapshot",
  });
}

/** Space that standalone disks need, in bytes. */
export async function measureCopies(jobs: readonly ImageJob[]): Promise<number> {
  let needed = 0;
  for (const { image } of jobs) needed += (await measureImage(image, image.base)).neededBytes;
  return needed;
}

/** Space that standalone disks need at least, in bytes: that of the images without backing files, which is known at once. */
export const sumRoots = (jobs: readonly ImageJob[]): number =>
  jobs.reduce((sum, { image }) => sum + statSync(findRoot(image).path).size, 0);

const findRoot = (image: ReadImage): ReadImage => (image.base ? findRoot(image.base) : image);

/** How long the tables of images in a repository are read for holes. What is not read is copied as data, at 100 MB/s or less. */
const TABLES_MS = 500;

/**
 * Creates the disks: overlays on the snapshot's images, or standalone copies. Each gets a dirty bitmap for the next
 * snapshot.
 * @param kind the symlink in WORKDIR through which an overlay names its backing file
 */
export async function fillImages(
  context: Context,
  snapshot: Snapshot,
  jobs: readonly ImageJob[],
  dir: string,
  kind: "copy" | BackingLink,
): Promise<void> {
  const deadline = performance.now() + TABLES_MS;
  const isLate = (): boolean => performance.now() > deadline;
  for (const { name, image, virtualBytes } of jobs) {
    const path = join(dir, name);
    if (kind === "copy") {
      const meter = context.meter(`restore ${snapshot.name}: ${name}`, virtualBytes);
      const follow = (part: number): void => meter.update(part * virtualBytes);
      await convertImage(image, path, follow, image.base).finally(() => meter.finish());
    } else {
      const backing = backingNameOf(snapshot.name, name, kind);
      await createImage(path, { sizeBytes: virtualBytes, backing, subclusters: true });
      if (kind === WORK.repositoryLink)
        (await import("../qemu/cover-holes.ts")).coverHoles(path, image, virtualBytes, isLate);
    }
    const { id } = snapshot.manifest!;
    // Without one, the next snapshot is full: incremental ones need the snapshot here.
    if (id !== undefined && kind !== WORK.repositoryLink) await addBitmap(path, bitmapOf(id));
    await syncFile(path);
    throwIfInterrupted();
  }
}
