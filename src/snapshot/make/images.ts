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
import { allocatedBytes, followWrites, requireRoom, syncFile } from "../../store/files.ts";
import { HOST, imageName, PARTIAL } from "../../store/layout.ts";
import type { StoredFile } from "../../store/manifest.ts";
import type { Context } from "../../vm/context.ts";
import { NODE } from "../../live/names.ts";
import { requireIntactBelow } from "../../vm/backing-snapshot.ts";
import type { Vm } from "../../vm/find.ts";
import { findSnapshotImage } from "../../store/snapshot-images.ts";
import { copyDisks, type CopyRequest } from "../../live/block-jobs.ts";
import { type DiskSource, type PointInTime, type OpenDisk, type Source } from "../../live/disk-source.ts";
import { bitmapOf, isOurBitmap, planImages, type SnapshotPlan } from "./plan.ts";
import { heldBytes } from "./sources.ts";
import { isUnattended } from "../../process/unattended.ts";

/** What compressed images usually take of what they hold; nobody can know before. */
const USUAL_RATIO = 0.5;

export interface StoreRequest {
  context: Context;
  vm: Vm;
  sources: readonly Source[];
  /** The snapshot while it is made. */
  staged: string;
  snapshot: string;
  /** Everything, whatever it could build on. */
  full: boolean;
  live: boolean;
  /** Bytes per second; 0: no limit. */
  speed: number;
}

/** The disks of a snapshot of the format qcow2, copied. */
export interface StoredImages {
  id: string;
  parent: string | undefined;
  consistency: Consistency;
  files: StoredFile[];
}

/**
 * Copies the disks into compressed images, or what was written since the snapshot that they build on. The working disks
 * note from that moment on what is written to them.
 * @throws 73 for want of room, 74 when a snapshot that is copied with a disk is damaged
 */
export async function storeImages(request: StoreRequest, source: DiskSource): Promise<StoredImages> {
  const { context, vm, sources, staged, snapshot, full, live, speed } = request;
  const { qmp, disks } = source;
  const plan: SnapshotPlan = full
    ? { parent: undefined, only: new Map() }
    : planImages(vm, sources, disks, live);
  requireRoom(staged, estimate(sources, disks, plan), "make the snapshot", "snapshots");
  const layered = plan.parent === undefined ? sources.filter(({ base }) => base) : [];
  await requireIntactBelow(
    vm.hostdir,
    layered.map(({ path }) => path),
    isUnattended(),
  );
  const id = newSnapshotId();
  const pointInTime = await source.freeze(changesOfBitmaps(disks, plan, id));
  if (pointInTime.refused)
    log.warn(`the next snapshot will have to hold everything: ${pointInTime.refused.message}`);
  using opened = new DisposableStack();
  try {
    const targets = await openTargets(qmp, vm, disks, plan, staged, layered);
    const written = [...targets.values()].map(({ path }) => opened.use(followWrites(path)));
    const requests: CopyRequest[] = [];
    for (const disk of disks)
      requests.push({
        from: pointInTime.nodeOf(disk),
        to: targets.get(disk.name)!.node,
        only: await onlyIn(pointInTime, disk, plan.only.get(disk.name) ?? "top"),
        compress: !layered.some(({ name }) => name === disk.name),
        gently: live,
      });
    await runBlockCopies(context, qmp, disks, requests, snapshot, speed);
    for (const { node } of targets.values()) await removeNode(qmp, node);
    await Promise.all(written.map((image) => image.sync()));
    for (const top of layered) await mergeLayers(context, top, staged, speed);
    const files = await Promise.all(disks.map((disk) => finishImage(disk, sources, staged)));
    return { id, parent: plan.parent, consistency: pointInTime.consistency, files };
  } catch (error) {
    // Nobody will ever ask for what is noted since a snapshot that is not.
    const actions = disks.map(({ node }) => removingBitmap(node, bitmapOf(id)));
    await qmp.execute("transaction", { actions }).catch(() => {});
    throw error;
  }
}

/** Begins new bitmaps, and drops those that nobody asks for any more. */
function changesOfBitmaps(disks: readonly OpenDisk[], plan: SnapshotPlan, id: string): TransactionAction[] {
  return disks.flatMap(({ name, node, bitmaps }) => {
    const used = plan.only.get(name);
    const keep = typeof used === "object" ? used.bitmap : undefined;
    const unused = bitmaps.map((bitmap) => bitmap.name).filter((item) => isOurBitmap(item) && item !== keep);
    return [addingBitmap(node, bitmapOf(id)), ...unused.map((item) => removingBitmap(node, item))];
  });
}

async function onlyIn(
  pointInTime: PointInTime,
  disk: OpenDisk,
  only: CopyRequest["only"],
): Promise<CopyRequest["only"]> {
  return typeof only === "object" ? { bitmap: await pointInTime.exposeBitmap(disk, only.bitmap) } : only;
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
  await copyDisks(qmp, requests, (done) => meter.update(done), speed).finally(() => meter.finish());
}

/** A new image in qemu. */
interface Target {
  node: string;
  path: string;
}

/** Makes the images and opens them. @returns them by the disks' names */
async function openTargets(
  qmp: QmpClient,
  { hostdir }: Vm,
  disks: readonly OpenDisk[],
  { parent }: SnapshotPlan,
  staged: string,
  layered: readonly Source[],
): Promise<Map<string, Target>> {
  const targets = new Map<string, Target>();
  for (const { name, virtualBytes } of disks) {
    const top = layered.some((source) => source.name === name);
    const path = top ? topOf(staged, name) : join(staged, imageName(name));
    const node = NODE.target + basename(name, ".img");
    const backing = parent === undefined ? undefined : `../${parent}/${imageName(name)}`;
    await createImage(path, { sizeBytes: virtualBytes, backing, compressed: !top });
    const base: ReadImage | undefined =
      parent === undefined ? undefined : findSnapshotImage(join(hostdir, HOST.backups), parent, name);
    await qmp.execute("blockdev-add", buildWritableNode(path, node, base));
    targets.set(name, { node, path });
  }
  return targets;
}

/** What an overlay itself holds, while a snapshot is made. */
const topOf = (staged: string, name: string): string => join(staged, `${PARTIAL}${name}`);

/**
 * Makes one image of what was copied of an overlay and of the images below it, which nothing changes. Not copied through
 * the overlay: qemu would read each hole of it down the chain.
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

/** An image that is written: durable, and nobody's to change. */
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

/** Room that the images will take, roughly; what a guest has written tells the most. */
function estimate(sources: readonly Source[], disks: readonly OpenDisk[], plan: SnapshotPlan): number {
  const held = disks.map((disk) => {
    const source = sources.find(({ name }) => name === disk.name)!;
    const only = plan.only.get(disk.name);
    if (typeof only === "object") return disk.bitmaps.find(({ name }) => name === only.bitmap)?.count ?? 0;
    const own = allocatedBytes(statSync(source.path));
    if (only === "top") return own;
    // An overlay's own part is there twice for a while, and not compressed at first.
    return heldBytes(source) + (source.base ? own / USUAL_RATIO : 0);
  });
  return Math.ceil(held.reduce((sum, bytes) => sum + bytes, 0) * USUAL_RATIO);
}

/** Copies one moment of a running VM's disks to plain images, and tells where these and the small files are. */
export async function copyPointInTime(
  context: Context,
  sources: readonly Source[],
  { qmp, disks, freeze }: DiskSource,
  staged: string,
  snapshot: string,
  speed: number,
): Promise<{ consistency: Consistency; copies: Source[] }> {
  const pointInTime = await freeze([]);
  const requests: CopyRequest[] = [];
  for (const disk of disks) {
    const { name, virtualBytes } = disk;
    const path = join(staged, name);
    const to = NODE.target + basename(name, ".img");
    await createImage(path, { sizeBytes: virtualBytes });
    await qmp.execute("blockdev-add", buildWritableNode(path, to));
    requests.push({ from: pointInTime.nodeOf(disk), to, only: "top", compress: false, gently: true });
  }
  await runBlockCopies(context, qmp, disks, requests, snapshot, speed);
  for (const { to } of requests) await removeNode(qmp, to);
  // Of an overlay its own part: what is below is merged with it, and changes no more.
  const copies = sources.map((source) => ({ ...source, path: join(staged, source.name) }));
  return { consistency: pointInTime.consistency, copies };
}
