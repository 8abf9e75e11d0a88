import { plain } from "../lib/text.ts";
import { toJson } from "../lib/json.ts";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { formatSize } from "../lib/size.ts";
import { formatTable } from "../lib/table.ts";
import { readVirtualBytes, refuseExternalReference } from "../qemu/image-header.ts";
import type { ByteRange } from "../qemu/zero-image.ts";
import { requireSpace } from "../store/files.ts";
import { unpackFiles } from "../store/gz.ts";
import { HOST, isDiskName } from "../store/layout.ts";
import { makeTemporary } from "../store/temporary.ts";
import type { Context } from "../vm/context.ts";
import { withSnapshotsToRead } from "../vm/open-snapshots.ts";
import { listStored } from "./restore.ts";
import { listImages } from "./restore-images.ts";
import { findSnapshotImage } from "../store/snapshot-images.ts";
import { compareDisks, type DiskImage } from "./compare-disks.ts";
import type { Snapshot } from "../store/snapshots.ts";

/** Differences of one disk, as `--json` prints them. */
interface DiskChanges {
  /** `disk-0.img` */
  name: string;
  /** Virtual sizes; null where that snapshot has no such disk. */
  fromBytes: number | null;
  toBytes: number | null;
  /** In clusters of 64 KiB, up to the smaller size. */
  changedBytes: number;
  /** Start and length in bytes, ascending. */
  ranges: ByteRange[];
}

/**
 * Prints which areas of the disks differ between two snapshots, comparing contents.
 * @throws 66 if one does not exist, 73 without space in TMPDIR, 74 if one is damaged
 */
export async function diffSnapshots(
  context: Context,
  from: string,
  to: string,
  json: boolean,
): Promise<void> {
  await withSnapshotsToRead(context, [from, to], "compare snapshots", async (hostdir, [a, b]) => {
    using scratch = makeTemporary(hostdir, context.tmpdir);
    const before = await openDisks(hostdir, a!, scratch.dir, "a");
    const after = await openDisks(hostdir, b!, scratch.dir, "b");
    const names = [...new Set([...before.keys(), ...after.keys()])].toSorted();
    const disks: DiskChanges[] = [];
    for (const name of names)
      disks.push(await compare(context, name, [before.get(name), after.get(name)], scratch.dir));
    const result = { from: a!.name, to: b!.name, disks };
    context.print(json ? toJson(result) : formatChanges(disks));
  });
}

/** Finds the images of a snapshot's disks; decompresses those of a gz snapshot into `scratch`. */
async function openDisks(
  hostdir: string,
  snapshot: Snapshot,
  scratch: string,
  letter: string,
): Promise<Map<string, DiskImage>> {
  if (snapshot.problem) throw snapshot.problem;
  const found = new Map<string, DiskImage>();
  const backups = join(hostdir, HOST.backups);
  for (const { name, virtualBytes } of listImages(hostdir, snapshot)) {
    const backing: string[] = [];
    const image = findSnapshotImage(backups, snapshot.name, name);
    for (let item = image.base; item; item = item.base) backing.push(item.path);
    found.set(name, { path: image.path, virtualBytes, backing });
  }
  const packed = listStored(snapshot).filter(({ name }) => isDiskName(name));
  if (packed.length === 0) return found;
  const needed = packed.reduce((sum, { neededBytes }) => sum + neededBytes, 0);
  requireSpace(scratch, needed, `unpack ${snapshot.name}`, "tmpdir");
  const dir = join(scratch, letter);
  mkdirSync(dir, { mode: 0o700 });
  const jobs = packed.map((job) => ({ ...job, to: join(dir, job.name) }));
  await unpackFiles(jobs, () => {});
  for (const { name, to: path } of jobs) {
    refuseExternalReference(path);
    found.set(name, { path, virtualBytes: readVirtualBytes(path) ?? 0, backing: [] });
  }
  return found;
}

async function compare(
  context: Context,
  name: string,
  [before, after]: readonly [before: DiskImage | undefined, after: DiskImage | undefined],
  scratch: string,
): Promise<DiskChanges> {
  const ranges =
    before && after ? await compareBoth(context, before, after, join(scratch, `${name}.changes`)) : [];
  return {
    name,
    fromBytes: before?.virtualBytes ?? null,
    toBytes: after?.virtualBytes ?? null,
    changedBytes: ranges.reduce((sum, [, length]) => sum + length, 0),
    ranges,
  };
}

async function compareBoth(
  context: Context,
  before: DiskImage,
  after: DiskImage,
  scratch: string,
): Promise<ByteRange[]> {
  const total = Math.min(before.virtualBytes, after.virtualBytes);
  const meter = context.meter("compare", total);
  try {
    return await compareDisks(before, after, scratch, (part) => meter.update(Math.round(part * total)));
  } finally {
    meter.finish();
  }
}

function formatChanges(disks: readonly DiskChanges[]): string {
  const rows = disks.map(({ name, fromBytes, toBytes, changedBytes, ranges }) => {
    const size = toBytes ?? fromBytes ?? 0;
    const what =
      fromBytes === null
        ? "only in the second"
        : toBytes === null
          ? "only in the first"
          : fromBytes === toBytes
            ? ""
            : `was ${formatSize(fromBytes)}`;
    return [plain(name), formatSize(changedBytes), formatSize(size), String(ranges.length), what];
  });
  return formatTable([["DISK", "CHANGED", "OF", "PLACES", ""], ...rows]);
}
