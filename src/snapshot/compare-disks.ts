import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { listAllocated } from "../qemu/allocated-clusters.ts";
import { followImg } from "../qemu/img.ts";
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
 * @param scratch path of a new directory, for an image that becomes as large as the differences
 * @param onPart called with the part that is done, 0 to 1
 * @returns in clusters of 64 KiB
 */
export async function compareDisks(
  before: DiskImage,
  after: DiskImage,
  scratch: string,
  onPart: (part: number) => void,
): Promise<ByteRange[]> {
  if (before.path === after.path) return [];
  const [top, base] = before.backing.includes(after.path) ? [before, after] : [after, before];
  const sizeBytes = Math.min(top.virtualBytes, base.virtualBytes);
  const at = top.backing.indexOf(base.path);
  const above = [top.path, ...top.backing.slice(0, at < 0 ? undefined : at)];
  const isLarge = sizeBytes >= WALKED;
  const inTop = isLarge ? listHeld(above, sizeBytes) : [];
  // Without a common image, both disks count, and the base is read where only it has data.
  const inBase = at < 0 ? listHeld([base.path, ...base.backing], sizeBytes) : [];
  const windows = isLarge ? chooseWindows([...inTop, ...inBase], sizeBytes) : undefined;
  if (windows?.length === 0) return [];
  mkdirSync(scratch, { mode: 0o700 });
  const what = `cannot compare ${before.path} with ${after.path}`;
  const compare = { what, above, base: base.path, inBase, sizeBytes, scratch, onPart };
  return windows ? compareWindows(compare, windows) : compareWhole(compare);
}

/** Where some of these images hold the disk; all of it if one of them cannot tell. */
const listHeld = (paths: readonly string[], sizeBytes: number): ByteRange[] =>
  paths.flatMap((path) => listAllocated(path) ?? [[0, sizeBytes]]);

interface Comparison {
  onPart: (part: number) => void;
  /** Error message. */
  what: string;
  /** Images of the first disk above the common one, or all. */
  above: readonly string[];
  /** Image of the second disk. */
  base: string;
  /** Where the second disk may have data, if the disks have no common image. */
  inBase: readonly ByteRange[];
  sizeBytes: number;
  scratch: string;
}

/** Between two places in one window. */
const NEAR = 16 * 2 ** 20;
/** `qemu-img rebase` looks at a disk in steps of 2 MiB, 0.2 s for each TiB of holes: at this much, windows pay. */
const WALKED = 64 * 2 ** 30;
/** The options of their extents have 31 bytes each, of 1023 for a backing file's name (docs/interop/qcow2.txt). */
const MOST_WINDOWS = 24;
/** Multiple of the clusters of all images. */
const ALIGNMENT = 2 * 2 ** 20;
const SECTOR = 512;

/**
 * Pure: the parts of a disk to compare, ascending.
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
  return windows.length <= MOST_WINDOWS ? windows : undefined;
}

/**
 * `qemu-img rebase` to a backing file reads only what is allocated in the images above it. So both disks are in one
 * chain: the first, zeroes where only the second has data, and the second.
 */
async function compareWhole(compare: Comparison): Promise<ByteRange[]> {
  const { above, base, inBase, sizeBytes, scratch } = compare;
  const layers = [...above];
  if (inBase.length > 0) {
    const zeroes = join(scratch, "zeroes.qcow2");
    writeZeroImage(zeroes, sizeBytes, inBase);
    layers.push(zeroes);
  }
  const chain = layers.reduceRight<ImageNode>(
    (backing, path) => ({ ...imageNode(path), backing }),
    imageNode(base),
  );
  // By its name alone: so qemu-img finds it in that chain.
  return rebase(compare, sizeBytes, chain, ["-F", "qcow2", "-b", base]);
}

/** Reads all of some parts of both disks, as disks of these parts alone. */
async function compareWindows(compare: Comparison, windows: readonly ByteRange[]): Promise<ByteRange[]> {
  const { above, base, scratch } = compare;
  const parts = (letter: string, path: string): ImageNode => {
    const name = `${letter}.vmdk`;
    writeFileSync(join(scratch, name), describeParts(linkFrom(scratch, letter, path), windows), {
      mode: 0o600,
    });
    const extents = windows.map((_, index) => [`extents.${index}`, { driver: "qcow2" }]);
    return { driver: "vmdk", file: { driver: "file", filename: name }, ...Object.fromEntries(extents) };
  };
  const sizeBytes = windows.reduce((sum, [, length]) => sum + length, 0);
  const to = ["-F", "vmdk", "-b", toName(parts("b", base))];
  return placeOnDisk(windows, await rebase(compare, sizeBytes, parts("a", above[0]!), to));
}

/** A name for an image, short and without special characters, in the directory where qemu-img works. */
function linkFrom(scratch: string, letter: string, path: string): string {
  // To its directory: what its backing file is called counts from there.
  symlinkSync(dirname(path), join(scratch, letter));
  return `${letter}/${basename(path)}`;
}

/** The only format of qemu that puts parts of other images one after another (VMware's "Virtual Disk Format 5.0"). */
const describeParts = (name: string, windows: readonly ByteRange[]): string =>
  [
    "# Disk DescriptorFile",
    "version=1",
    "CID=fffffffe",
    "parentCID=ffffffff",
    'createType="twoGbMaxExtentFlat"',
    ...windows.map(([start, length]) => `RW ${length / SECTOR} FLAT "${name}" ${start / SECTOR}`),
    "",
  ].join("\n");

/** Pure: areas of the windows, one after another, as areas of the disk. Both ascending. */
export function placeOnDisk(windows: readonly ByteRange[], areas: readonly ByteRange[]): ByteRange[] {
  const found: ByteRange[] = [];
  let shown = 0;
  for (const [start, size] of windows) {
    for (const [from, length] of areas) {
      const first = Math.max(from, shown);
      const end = Math.min(from + length, shown + size);
      if (first < end) found.push([start + first - shown, end - first]);
    }
    shown += size;
  }
  return found;
}

/** @returns what an empty overlay got when its backing file was exchanged: where they differ */
async function rebase(
  { what, scratch, onPart }: Comparison,
  sizeBytes: number,
  from: ImageNode,
  to: readonly string[],
): Promise<ByteRange[]> {
  const name = "changes.qcow2";
  const overlay = join(scratch, name);
  await createImage(overlay, { sizeBytes });
  const node = { ...imageNode(name), backing: from };
  await followImg(["rebase", "-p", ...to, toName(node)], onPart, { what, cwd: scratch });
  throwIfInterrupted();
  const found = listAllocated(overlay);
  if (!found) throw new VmError("io", `${what}: cannot read ${overlay}`);
  return found;
}

const imageNode = (path: string): ImageNode => ({
  driver: "qcow2",
  file: { driver: "file", filename: path },
});

const toName = (node: ImageNode): string => `json:${JSON.stringify(node)}`;
