import { plain } from "../lib/text.ts";
import { toJson } from "../lib/json.ts";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { formatSize } from "../lib/size.ts";
import { formatTable } from "../lib/table.ts";
import { exec } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { readVirtualBytes, refuseExternalReference } from "../qemu/image-header.ts";
import { createImage } from "../qemu/new-image.ts";
import { writeZeroImage, type ByteRange } from "../qemu/zero-image.ts";
import { requireSpace } from "../store/files.ts";
import { unpackFiles } from "../store/gz.ts";
import { HOST, isDiskName } from "../store/layout.ts";
import { stageWork } from "../store/stage.ts";
import type { Context } from "../vm/context.ts";
import { withVmToRead } from "../vm/open.ts";
import { listStored } from "./restore.ts";
import { listImages } from "./restore-images.ts";
import { findSnapshotImage } from "../store/snapshot-images.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";

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
  await withVmToRead(context, "compare snapshots", async (vm) => {
    const a = findSnapshot(vm.hostdir, from);
    const b = findSnapshot(vm.hostdir, to);
    const stage = stageWork(vm.hostdir, context, { state: "none" });
    try {
      const before = await openDisks(vm.hostdir, a, stage.dir, "a");
      const after = await openDisks(vm.hostdir, b, stage.dir, "b");
      const names = [...new Set([...before.keys(), ...after.keys()])].toSorted();
      const disks: DiskChanges[] = [];
      for (const name of names)
        disks.push(await compare(name, before.get(name), after.get(name), join(stage.dir, "changes.qcow2")));
      const result = { from: a.name, to: b.name, disks };
      context.print(json ? toJson(result) : formatChanges(disks));
    } finally {
      stage.abort();
    }
  });
}

interface OpenImage {
  path: string;
  virtualBytes: number;
  /** Its backing files, the nearest first. */
  backing: string[];
}

/** Finds the images of a snapshot's disks; decompresses those of a gz snapshot into `scratch`. */
async function openDisks(
  hostdir: string,
  snapshot: Snapshot,
  scratch: string,
  letter: string,
): Promise<Map<string, OpenImage>> {
  if (snapshot.problem) throw snapshot.problem;
  const found = new Map<string, OpenImage>();
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

/** @param scratch path for a temporary image, as large as the differences; another one is beside it */
async function compare(
  name: string,
  before: OpenImage | undefined,
  after: OpenImage | undefined,
  scratch: string,
): Promise<DiskChanges> {
  const known = {
    name,
    fromBytes: before?.virtualBytes ?? null,
    toBytes: after?.virtualBytes ?? null,
  };
  if (!before || !after || before.path === after.path) return { ...known, changedBytes: 0, ranges: [] };
  const [top, base] = before.backing.includes(after.path) ? [before, after] : [after, before];
  const sizeBytes = Math.min(top.virtualBytes, base.virtualBytes);
  const shared = top.backing.indexOf(base.path);
  const layers = [scratch, top.path, ...top.backing.slice(0, shared < 0 ? undefined : shared)];
  if (shared < 0) {
    const zeroes = `${scratch}.zeroes`;
    writeZeroImage(zeroes, sizeBytes, await mapImage(base.path, ({ data }) => data));
    layers.push(zeroes);
  }
  await createImage(scratch, { sizeBytes });
  // `qemu-img rebase` to a backing file reads only what is allocated in the images above it. So both disks are in one
  // chain: the first, zeroes where only the second has data, and the second.
  const node = layers.reduceRight((backing, path) => ({ ...diffNode(path), backing }), diffNode(base.path));
  await exec(["qemu-img", "rebase", "-F", "qcow2", "-b", base.path, `json:${JSON.stringify(node)}`], {
    what: `cannot compare ${before.path} with ${after.path}`,
  });
  throwIfInterrupted();
  const ranges = await mapImage(scratch, ({ depth, present }) => depth === 0 && present !== false);
  return { ...known, changedBytes: ranges.reduce((sum, [, length]) => sum + length, 0), ranges };
}

const diffNode = (path: string): object => ({ driver: "qcow2", file: { driver: "file", filename: path } });

/** An entry of `qemu-img map` (qapi/block-core.json, MapEntry). */
interface MapEntry {
  start: number;
  length: number;
  data: boolean;
  depth: number;
  /** Absent before qemu 6.1. */
  present?: boolean;
}

/** The areas of a disk that are as wanted, joined where they touch. */
async function mapImage(path: string, isWanted: (entry: MapEntry) => boolean): Promise<ByteRange[]> {
  const { stdout } = await exec(["qemu-img", "map", "-f", "qcow2", "--output=json", path], {
    what: `cannot map ${path}`,
  });
  const ranges: ByteRange[] = [];
  for (const entry of JSON.parse(stdout) as MapEntry[]) {
    if (!isWanted(entry)) continue;
    const { start, length } = entry;
    const last = ranges.at(-1);
    if (last && last[0] + last[1] === start) last[1] += length;
    else ranges.push([start, length]);
  }
  return ranges;
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
