import { VmError } from "../lib/errors.ts";
import { copyFileSync } from "node:fs";
import { exec } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { listAllocated } from "../qemu/allocated-clusters.ts";
import { createImage } from "../qemu/new-image.ts";
import { writeZeroImage, type ByteRange } from "../qemu/zero-image.ts";

/** A qcow2 image of a disk in a snapshot. */
export interface DiskImage {
  path: string;
  virtualBytes: number;
  /** Its backing files, the nearest first. */
  backing: string[];
}

/** A node of a disk's chain, as qemu's json: names have it. */
type ImageNode = Record<string, unknown>;

/**
 * The areas in which two disks differ, up to the smaller size.
 * @param scratch path for temporary images, as large as the differences; further ones are beside it
 * @returns in clusters of 64 KiB
 */
export async function compareDisks(
  before: DiskImage,
  after: DiskImage,
  scratch: string,
): Promise<ByteRange[]> {
  if (before.path === after.path) return [];
  const [top, base] = before.backing.includes(after.path) ? [before, after] : [after, before];
  const sizeBytes = Math.min(top.virtualBytes, base.virtualBytes);
  const at = top.backing.indexOf(base.path);
  const above = [top.path, ...top.backing.slice(0, at < 0 ? undefined : at)];
  const isLarge = sizeBytes >= WALKED && Buffer.byteLength(base.path) <= LONGEST_PATH;
  const inTop = isLarge ? listHeld(above, sizeBytes) : [];
  // Without a common image, both disks count, and the base is read where only it has data.
  const inBase = at < 0 ? listHeld([base.path, ...base.backing], sizeBytes) : [];
  const what = `cannot compare ${before.path} with ${after.path}`;
  const compare = { what, above, base: base.path, inBase, sizeBytes };
  const windows = isLarge ? chooseWindows([...inTop, ...inBase], sizeBytes) : undefined;
  if (!windows) return compareWhole(compare, scratch);
  await createImage(scratch, { sizeBytes: Math.max(ALIGNMENT, ...windows.map(([, size]) => size)) });
  const found = windows.map((window, index) => {
    const overlay = `${scratch}.${index}`;
    copyFileSync(scratch, overlay);
    return compareWindow(compare, window, overlay);
  });
  // After an error, too, none must continue to write where the caller cleans up.
  await Promise.allSettled(found);
  return (await Promise.all(found)).flat();
}

/** Where some of these images hold the disk; all of it if one of them cannot tell. */
const listHeld = (paths: readonly string[], sizeBytes: number): ByteRange[] =>
  paths.flatMap((path) => listAllocated(path) ?? [[0, sizeBytes]]);

interface Comparison {
  /** Error message. */
  what: string;
  /** Images of the first disk above the common one, or all. */
  above: readonly string[];
  /** Image of the second disk. */
  base: string;
  /** Where the second disk may have data, if the disks have no common image. */
  inBase: readonly ByteRange[];
  sizeBytes: number;
}

/** A backing file's name in a qcow2 image has at most 1023 bytes (docs/interop/qcow2.txt): here a path and 200 more. */
const LONGEST_PATH = 800;

/** Between two places that are compared by one process. */
const NEAR = 16 * 2 ** 20;
/** `qemu-img rebase` looks at a disk in steps of 2 MiB: at this much in the time that another process takes. */
const WALKED = 64 * 2 ** 30;
const MOST_WINDOWS = 16;
/** Multiple of the clusters of all images. */
const ALIGNMENT = 2 * 2 ** 20;

/**
 * Pure: the parts of a disk to compare one by one, ascending.
 * @param places where the disks may differ, in any order
 * @returns undefined if the whole disk is compared sooner
 */
export function chooseWindows(places: readonly ByteRange[], sizeBytes: number): ByteRange[] | undefined {
  const windows: ByteRange[] = [];
  for (const [start, length] of places.toSorted(([a], [b]) => a - b)) {
    if (start >= sizeBytes) break;
    const from = start - (start % ALIGNMENT);
    const to = Math.min(sizeBytes, Math.ceil((start + length) / ALIGNMENT) * ALIGNMENT);
    const last = windows.at(-1);
    if (last && from <= last[0] + last[1] + NEAR) last[1] = Math.max(last[1], to - last[0]);
    else windows.push([from, to - from]);
  }
  const worthwhile = Math.min(MOST_WINDOWS, sizeBytes / WALKED);
  return windows.length === 0 || windows.length <= worthwhile ? windows : undefined;
}

/**
 * `qemu-img rebase` to a backing file reads only what is allocated in the images above it. So both disks are in one
 * chain: the first, zeroes where only the second has data, and the second.
 */
async function compareWhole(compare: Comparison, scratch: string): Promise<ByteRange[]> {
  const { above, base, inBase, sizeBytes } = compare;
  await createImage(scratch, { sizeBytes });
  const layers = [...above];
  if (inBase.length > 0) {
    const zeroes = `${scratch}.zeroes`;
    writeZeroImage(zeroes, sizeBytes, inBase);
    layers.push(zeroes);
  }
  const chain = layers.reduceRight<ImageNode>(
    (backing, path) => ({ ...imageNode(path), backing }),
    imageNode(base),
  );
  return rebase(compare, scratch, chain, ["-F", "qcow2", "-b", base]);
}

/** Reads all of a part of both disks. */
async function compareWindow(
  compare: Comparison,
  [offset, size]: ByteRange,
  overlay: string,
): Promise<ByteRange[]> {
  const part = (path: string): ImageNode => ({ driver: "raw", offset, size, file: imageNode(path) });
  const backing = ["-F", "raw", "-b", `json:${JSON.stringify(part(compare.base))}`];
  const ranges = await rebase(compare, overlay, part(compare.above[0]!), backing);
  return ranges.map(([start, length]) => [offset + start, length]);
}

/** @returns what an empty overlay got when its backing file was exchanged: where they differ */
async function rebase(
  { what }: Comparison,
  overlay: string,
  backing: ImageNode,
  to: readonly string[],
): Promise<ByteRange[]> {
  const node = { ...imageNode(overlay), backing };
  await exec(["qemu-img", "rebase", ...to, `json:${JSON.stringify(node)}`], { what });
  throwIfInterrupted();
  const found = listAllocated(overlay);
  if (!found) throw new VmError("io", `${what}: cannot read ${overlay}`);
  return found;
}

const imageNode = (path: string): ImageNode => ({
  driver: "qcow2",
  file: { driver: "file", filename: path },
});
