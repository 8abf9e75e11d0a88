import { chmodSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import type { ReadImage } from "../../machine/types.ts";
import { log } from "../../lib/log.ts";
import { newSnapshotId } from "../../lib/uuid.ts";
import { buildWritableNode } from "../../qemu/devices/image.ts";
import { readVirtualBytes } from "../../qemu/image-header.ts";
import { compressImage } from "../../qemu/img.ts";
import { createImage } from "../../qemu/new-image.ts";
import { addingBitmap, removeNode, removingBitmap } from "../../qmp/block.ts";
import type { QmpClient } from "../../qmp/client.ts";
import type { TransactionAction } from "../../qmp/commands.ts";
import type { Consistency } from "../../store/mark-types.ts";
import { remove } from "../../store/remove.ts";
import { allocatedBytes, followWrites, requireSpace, syncFile } from "../../store/files.ts";
import { HOST, imageName, PARTIAL } from "../../store/layout.ts";
import type { StoredFile } from "../../store/manifest.ts";
import type { Context } from "../../vm/context.ts";
import { NODE } from "../../live/names.ts";
import { requireIntactBackingFiles } from "../../vm/backing-snapshot.ts";
import type { Vm } from "../../vm/find.ts";
import { findSnapshotImage } from "../../store/snapshot-images.ts";
import { copyDisks, type CopyRequest } from "../../live/block-jobs.ts";
import { type DiskSource, type OpenDisk, type Source } from "../../live/disk-source.ts";
import { bitmapOf, isSnapshotBitmap, planImages, type SnapshotPlan } from "./plan.ts";
import { heldBytes } from "./sources.ts";
import { isUnattended } from "../../process/unattended.ts";

/** Usual compression ratio of images, for the estimate. */
const USUAL_RATIO = 0.5;

export interface StoreRequest {
  context: Context;
  vm: Vm;
  sources: readonly Source[];
  /** Directory of the unfinished snapshot. */
  staged: string;
  snapshot: string;
  /** Not incremental. */
  full: boolean;
  live: boolean;
  /** Bytes per second; 0: no limit. */
  speed: number;
}

/** The disks of a new qcow2 snapshot. */
export interface StoredImages {
  id: string;
  parent: string | undefined;
  consistency: Consistency;
  files: StoredFile[];
}

/**
 * Copies the disks, or their changes since the parent, into compressed images. Starts a dirty bitmap in each working disk
 * at the point in time.
 * @throws 73 without space, 74 if a snapshot that is copied as a disk's backing file is damaged
 */
export async function storeImages(request: StoreRequest, source: DiskSource): Promise<StoredImages> {
  const { context, vm, sources, staged, snapshot, full, live, speed } = request;
  const { qmp, disks } = source;
  const plan: SnapshotPlan = full
    ? { parent: undefined, only: new Map() }
    : planImages(vm, sources, disks, live);
  requireSpace(staged, estimate(sources, disks, plan), "create the snapshot", "snapshots");
  const layered = plan.parent === undefined ? sources.filter(({ base }) => base) : [];
  // Reads them while the disks are copied.
  const intact = requireIntactBackingFiles(
    vm,
    layered.map(({ path }) => path),
    { low: isUnattended() },
  );
  intact.catch(() => {});
  const id = newSnapshotId();
  const pointInTime = await source.freeze(bitmapActions(disks, plan, id), plan.parent === undefined);
  if (pointInTime.refused) log.warn(`the next snapshot will be a full one: ${pointInTime.refused.message}`);
  using opened = new DisposableStack();
  try {
    const targets = await openTargets(source, vm, disks, plan, staged, layered);
    const written = [...targets.values()].map(({ path }) => opened.use(followWrites(path)));
    const requests: CopyRequest[] = [];
    for (const disk of disks)
      requests.push({
        from: pointInTime.nodeOf(disk),
        to: targets.get(disk.name)!.node,
        only: await pointInTime.select(disk, plan.only.get(disk.name) ?? "top"),
        compress: !layered.some(({ name }) => name === disk.name),
        gently: live,
      });
    await runBlockCopies(context, qmp, disks, requests, snapshot, speed);
    for (const { node } of targets.values()) await removeNode(qmp, node);
    await Promise.all(written.map((image) => image.sync()));
    await intact;
    for (const top of layered) await mergeLayers(context, top, staged, speed);
    const files = await Promise.all(disks.map((disk) => finishImage(disk, sources, staged)));
    return { id, parent: plan.parent, consistency: pointInTime.consistency, files };
  } catch (error) {
    // Without its snapshot the bitmap is useless.
    const actions = disks.map(({ node }) => removingBitmap(node, bitmapOf(id)));
    await qmp.execute("transaction", { actions }).catch(() => {});
    throw error;
  }
}

/** Adds new bitmaps, and removes unused ones. */
function bitmapActions(disks: readonly OpenDisk[], plan: SnapshotPlan, id: string): TransactionAction[] {
  return disks.flatMap(({ name, node, bitmaps }) => {
    const used = plan.only.get(name);
    const keep = typeof used === "object" ? used.bitmap : undefined;
    const unused = bitmaps
      .map((bitmap) => bitmap.name)
      .filter((item) => isSnapshotBitmap(item) && item !== keep);
    return [addingBitmap(node, bitmapOf(id)), ...unused.map((item) => removingBitmap(node, item))];
  });
}

async function runBlockCopies(
  context: Context,
  qmp: QmpClient,
  disks: readonly OpenDisk[],
  requests: readonly CopyRequest[],
  snapshot: string,
  speed: number,
): Promise<void> {
  const total = disks.reduce((sum, { virtualBytes }) => sum + virtualBytes, 0);
  const meter = context.meter(`backup ${snapshot}`, total);
  // The jobs find out what is allocated.
  const follow = (done: number, all: number): void => meter.update(done, all);
  await copyDisks(qmp, requests, follow, speed).finally(() => meter.finish());
}

/** A new image in qemu. */
interface Target {
  node: string;
  path: string;
}

/** Creates the images and opens them. @returns targets by disk name */
async function openTargets(
  source: Pick<DiskSource, "addImage">,
  { hostdir }: Vm,
  disks: readonly OpenDisk[],
  { parent }: SnapshotPlan,
  staged: string,
  layered: readonly Source[],
): Promise<Map<string, Target>> {
  const targets = new Map<string, Target>();
  for (const { name, virtualBytes } of disks) {
    const top = layered.some((one) => one.name === name);
    const path = top ? topOf(staged, name) : join(staged, imageName(name));
    const node = NODE.target + basename(name, ".img");
    const backing = parent === undefined ? undefined : `../${parent}/${imageName(name)}`;
    await createImage(path, { sizeBytes: virtualBytes, backing, compressed: !top });
    const base: ReadImage | undefined =
      parent === undefined ? undefined : findSnapshotImage(join(hostdir, HOST.backups), parent, name);
    await source.addImage(buildWritableNode(path, node, base));
    targets.set(name, { node, path });
  }
  return targets;
}

/** Temporary image for an overlay's own clusters. */
const topOf = (staged: string, name: string): string => join(staged, `${PARTIAL}${name}`);

/**
 * Merges the copy of an overlay with its backing files, which do not change. A copy through the overlay would be slower:
 * qemu would look up each of its holes down the chain.
 */
async function mergeLayers(
  context: Context,
  { name, path: disk, base }: Source,
  staged: string,
  speed: number,
): Promise<void> {
  const top: ReadImage = { format: "qcow2", path: topOf(staged, name), base };
  const size = readVirtualBytes(disk) ?? 0;
  const meter = context.meter(`merge ${name}`, size);
  try {
    await compressImage(top, join(staged, imageName(name)), (part) => meter.update(part * size), {
      rate: speed,
      low: isUnattended(),
    });
  } finally {
    meter.finish();
  }
  remove(top.path);
}

/** Makes a written image durable and read-only. */
async function finishImage(disk: OpenDisk, sources: readonly Source[], staged: string): Promise<StoredFile> {
  const file = imageName(disk.name);
  const path = join(staged, file);
  await syncFile(path);
  chmodSync(path, 0o400);
  const stats = statSync(sources.find(({ name }) => name === disk.name)!.path);
  return {
    name: disk.name,
    file,
    bytes: stats.size,
    allocatedBytes: allocatedBytes(stats),
    storedBytes: statSync(path).size,
    virtualBytes: disk.virtualBytes,
  };
}

/** Estimates the size of the images in bytes. */
function estimate(sources: readonly Source[], disks: readonly OpenDisk[], plan: SnapshotPlan): number {
  const allocated = disks.map((disk) => {
    const source = sources.find(({ name }) => name === disk.name)!;
    const only = plan.only.get(disk.name);
    if (typeof only === "object") return disk.bitmaps.find(({ name }) => name === only.bitmap)?.count ?? 0;
    const own = allocatedBytes(statSync(source.path));
    if (only === "top") return own;
    // The temporary copy of an overlay's own clusters is not compressed.
    return heldBytes(source) + (source.base ? own / USUAL_RATIO : 0);
  });
  return Math.ceil(allocated.reduce((sum, bytes) => sum + bytes, 0) * USUAL_RATIO);
}

/** Copies a point in time of a running VM's disks to uncompressed images. @returns these, and the copied small files */
export async function copyPointInTime(
  context: Context,
  sources: readonly Source[],
  { qmp, disks, addImage, freeze }: DiskSource,
  staged: string,
  snapshot: string,
  speed: number,
): Promise<{ consistency: Consistency; copies: Source[] }> {
  const pointInTime = await freeze([], true);
  const requests: CopyRequest[] = [];
  for (const disk of disks) {
    const { name, virtualBytes } = disk;
    const path = join(staged, name);
    const to = NODE.target + basename(name, ".img");
    await createImage(path, { sizeBytes: virtualBytes });
    await addImage(buildWritableNode(path, to));
    const only = await pointInTime.select(disk, "top");
    requests.push({ from: pointInTime.nodeOf(disk), to, only, compress: false, gently: true });
  }
  await runBlockCopies(context, qmp, disks, requests, snapshot, speed);
  for (const { to } of requests) await removeNode(qmp, to);
  // `storeGz` merges copies of overlays with their backing files, which do not change.
  const copies = sources.map((source) => ({ ...source, path: join(staged, source.name) }));
  return { consistency: pointInTime.consistency, copies };
}
