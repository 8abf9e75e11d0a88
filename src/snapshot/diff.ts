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
import { requireRoom } from "../store/files.ts";
import { unpackFiles } from "../store/gz.ts";
import { HOST, isDiskName } from "../store/layout.ts";
import { stageWork } from "../store/stage.ts";
import type { Context } from "../vm/context.ts";
import { withVmToRead } from "../vm/open.ts";
import { listStored } from "./restore.ts";
import { listImages } from "./restore-images.ts";
import { findSnapshotImage } from "../store/snapshot-images.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";

/** What differs of one disk; `--json` prints it so. */
interface DiskChanges {
  /** `disk-0.img` */
  name: string;
  /** Sizes that the guest sees; null where that snapshot has no such disk. */
  fromBytes: number | null;
  toBytes: number | null;
  /** Whole clusters of 64 KiB, as far as both have them. */
  changedBytes: number;
  /** Start and length in bytes, in order. */
  ranges: [number, number][];
}

/**
 * Prints which parts of the disks differ between two snapshots, by their contents.
 * @throws 66 for one that is not there, 73 without room in TMPDIR, 74 for a damaged one
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
  /** Images it builds on, the next one first. */
  below: string[];
}

/** The images of a snapshot's disks: where they are, or unpacked. */
async function openDisks(
  hostdir: string,
  snapshot: Snapshot,
  room: string,
  letter: string,
): Promise<Map<string, OpenImage>> {
  if (snapshot.problem) throw snapshot.problem;
  const found = new Map<string, OpenImage>();
  const backups = join(hostdir, HOST.backups);
  for (const { name, virtualBytes } of listImages(hostdir, snapshot)) {
    const below: string[] = [];
    const image = findSnapshotImage(backups, snapshot.name, name);
    for (let item = image.base; item; item = item.base) below.push(item.path);
    found.set(name, { path: image.path, virtualBytes, below });
  }
  const packed = listStored(snapshot).filter(({ name }) => isDiskName(name));
  if (packed.length === 0) return found;
  const needed = packed.reduce((sum, { neededBytes }) => sum + neededBytes, 0);
  requireRoom(room, needed, `unpack ${snapshot.name}`, "tmpdir");
  const dir = join(room, letter);
  mkdirSync(dir, { mode: 0o700 });
  const jobs = packed.map((job) => ({ ...job, to: join(dir, job.name) }));
  await unpackFiles(jobs, () => {});
  for (const { name, to: path } of jobs) {
    refuseExternalReference(path);
    found.set(name, { path, virtualBytes: readVirtualBytes(path) ?? 0, below: [] });
  }
  return found;
}

/** @param scratch an image that may be made there; it is as large as what differs */
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
  // Where one builds on the other, qemu-img reads no more than what lies between them, if told so in this order.
  const [top, base] = before.below.includes(after.path) ? [before, after] : [after, before];
  await createImage(scratch, {
    sizeBytes: Math.min(top.virtualBytes, base.virtualBytes),
    backing: top.path,
  });
  await exec(["qemu-img", "rebase", "-f", "qcow2", "-F", "qcow2", "-b", base.path, scratch], {
    what: `cannot compare ${before.path} with ${after.path}`,
  });
  throwIfInterrupted();
  const { stdout } = await exec(["qemu-img", "map", "-f", "qcow2", "--output=json", scratch], {
    what: "cannot see what differs",
  });
  const map = JSON.parse(stdout) as { start: number; length: number; depth: number; present?: boolean }[];
  const ranges: [number, number][] = [];
  for (const { start, length, depth, present } of map) {
    if (depth !== 0 || present === false) continue;
    const last = ranges.at(-1);
    if (last && last[0] + last[1] === start) last[1] += length;
    else ranges.push([start, length]);
  }
  return { ...known, changedBytes: ranges.reduce((sum, [, length]) => sum + length, 0), ranges };
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
