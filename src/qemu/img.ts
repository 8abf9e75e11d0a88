import { closeSync, createReadStream, statSync } from "node:fs";
import { exec, processFailure, ProcessError, type Finished } from "../process/exec.ts";
import { pipe } from "../process/libc.ts";
import { VmError } from "../lib/errors.ts";
import { saysImageLocked, saysNoZstd } from "../lib/program-messages.ts";
import { counted } from "../lib/text.ts";
import type { ImageFormat, ReadImage } from "../machine/types.ts";
import { buildImageNode } from "./devices/image.ts";
import { endOnSector, SUBCLUSTERS } from "./new-image.ts";

/** Creates a qcow2 overlay on a base image. */
export async function createOverlay(path: string, base: ReadImage, sizeBytes: number): Promise<void> {
  const options = ["-o", SUBCLUSTERS, "-b", base.path, "-F", base.format];
  await exec(["qemu-img", "create", "-q", "-f", "qcow2", ...options, path, String(sizeBytes)], {
    what: `cannot create ${path}`,
  });
  endOnSector(path);
}

/** Grows a qcow2 image. */
export async function resizeImage(path: string, sizeBytes: number): Promise<void> {
  await exec(["qemu-img", "resize", "-q", "-f", "qcow2", path, String(sizeBytes)], {
    what: `cannot grow ${path}`,
  });
  endOnSector(path);
}

/** Grows any image that is not in use; with a backing file, what is new reads as zeroes. */
export async function growImage(image: ReadImage, sizeBytes: number): Promise<void> {
  await exec(["qemu-img", "resize", "-q", jsonName(writable(image)), String(sizeBytes)], {
    what: `cannot grow ${image.path}`,
  });
  if (image.format === "qcow2") endOnSector(image.path);
}

function writable(image: ReadImage): object {
  const node = buildImageNode(image);
  return { ...node, "read-only": false, file: { ...(node.file as object), "read-only": false } };
}

/** Virtual size of any image. */
export async function readImageSize(image: ReadImage): Promise<number> {
  const name = jsonName(buildImageNode({ ...image, base: undefined }));
  const { stdout } = await exec(["qemu-img", "info", "--output=json", name], {
    what: `cannot read the image ${image.path} (${image.format})`,
  });
  return (JSON.parse(stdout) as { "virtual-size": number })["virtual-size"];
}

const jsonName = (node: object): string => `json:${JSON.stringify(node)}`;

export interface Measured {
  /** Virtual size. */
  virtualBytes: number;
  /** Maximum size of a qcow2 image with this content. */
  neededBytes: number;
}

/** Formats with compressed clusters: a copy may be larger than the image. */
const COMPRESSIBLE: readonly ImageFormat[] = ["qcow2", "vmdk"];

/** Estimated size of qcow2's metadata: 8 bytes for each cluster of 64 KiB, and some more. */
const estimateMetadata = (virtualBytes: number): number => (1 << 20) + Math.ceil(virtualBytes / 4096);

/** Exit statuses of `qemu-img check` (qemu-img(1)): no errors, leaked clusters only, checks not supported by the format. */
const INTACT: readonly (number | null)[] = [0, 3, 63];

/**
 * Checks an image's metadata.
 * @param low run with low priority
 * @returns why it is damaged; undefined if it is intact, or its format does not support checks
 */
export async function findImageDamage(image: ReadImage, low = false): Promise<string | undefined> {
  const argv = ["qemu-img", "check", "--output=json", jsonName(buildImageNode(image))];
  const { status, stdout, stderr } = await exec(argv, { low, anyStatus: true });
  if (INTACT.includes(status)) return undefined;
  if (status === 2) {
    const { corruptions = 0 } = JSON.parse(stdout) as { corruptions?: number };
    return `qemu-img check found ${counted(corruptions, "error")}`;
  }
  const last = stderr.trim().split("\n").at(-1) ?? "";
  return (
    last.replace(/^qemu-img: (Could not open '.*': )?/, "") || `qemu-img check exited with status ${status}`
  );
}

/**
 * Checks an image's metadata, because qemu reads the missing end of a truncated image as zeroes.
 * @throws 74 if it is damaged
 */
export async function checkImage(image: ReadImage): Promise<void> {
  const damage = await findImageDamage(image);
  if (damage === undefined) return;
  throw new VmError("io", `the image ${image.path} (${image.format}) is damaged: ${damage}`, {
    hint: "compare its checksum with the published one, and download it again",
  });
}

/**
 * Measures an image before it is copied.
 * @param base its backing file, which is copied with it
 * @throws 75 if a running VM writes to it, 74 if it cannot be read
 */
export async function measureImage(image: ReadImage, base?: ReadImage): Promise<Measured> {
  const query = async (words: string[], queried: ReadImage): Promise<Record<string, number>> => {
    const name = jsonName(buildImageNode(queried));
    const result = await exec(["qemu-img", ...words, "--output=json", name], { anyStatus: true });
    if (result.status === 0) return JSON.parse(result.stdout) as Record<string, number>;
    if (saysImageLocked(result.stderr))
      throw new VmError("busy", `the image ${image.path} is in use: a running VM writes to it`, {
        hint: "shut that VM down first",
      });
    throw new ProcessError(`cannot read the image ${image.path} (${image.format})`, result);
  };
  // `info` does not open backing files, and rejects a JSON name with one.
  const virtualBytes = (await query(["info"], { ...image, base: undefined }))["virtual-size"]!;
  const required = (await query(["measure", "-O", "qcow2"], { ...image, base })).required!;
  if (base || image.blockDevice || COMPRESSIBLE.includes(image.format))
    return { virtualBytes, neededBytes: required };
  // For some formats, `measure` counts unallocated parts.
  const held = statSync(image.path).blocks * 512 + estimateMetadata(virtualBytes);
  return { virtualBytes, neededBytes: Math.min(required, held) };
}

/**
 * Copies an image to a new, sparse, standalone qcow2 image.
 * @param onPart receives the progress, 0 to 1
 * @param base its backing file, which is copied with it
 */
export async function convertImage(
  image: ReadImage,
  target: string,
  onPart: (part: number) => void,
  base?: ReadImage,
): Promise<void> {
  const result = await runConvert(image, target, onPart, { base });
  if (result.status !== 0) throw processFailure(`cannot copy the image ${image.path}`, result);
  endOnSector(target);
}

/**
 * Copies an image to a new compressed qcow2 image, with zstd if qemu-img has it.
 * @param rate bytes per second; 0: no limit
 * @param low run with low priority
 */
export async function compressImage(
  image: ReadImage,
  target: string,
  onPart: (part: number) => void,
  { rate, low }: { rate: number; low: boolean },
): Promise<void> {
  // Parallel and out-of-order writes: compression is the bottleneck (qemu-img(1), convert).
  const words = ["-c", "-W", "-m", "16", ...(rate > 0 ? ["-r", String(rate)] : [])];
  const zstd = ["-o", "compression_type=zstd"];
  let result = await runConvert(image, target, onPart, { words: [...words, ...zstd], low });
  if (result.status !== 0 && saysNoZstd(result.stderr))
    result = await runConvert(image, target, onPart, { words, low });
  if (result.status !== 0) throw processFailure(`cannot copy the image ${image.path}`, result);
}

/** Copies an image to a new vmdk that can be read from its start to its end, with compressed clusters: for an OVA. */
export async function exportImage(
  image: ReadImage,
  target: string,
  onPart: (part: number) => void,
  base?: ReadImage,
): Promise<void> {
  const words = ["-o", "subformat=streamOptimized"];
  const result = await runConvert(image, target, onPart, { base, words, format: "vmdk" });
  if (result.status !== 0) throw processFailure(`cannot copy the image ${image.path}`, result);
}

async function runConvert(
  image: ReadImage,
  target: string,
  onPart: (part: number) => void,
  {
    words = [],
    low = false,
    base = image.base,
    format = "qcow2",
  }: { words?: string[]; low?: boolean; base?: ReadImage | undefined; format?: "qcow2" | "vmdk" },
): Promise<Finished> {
  const argv = ["convert", "-p", "-O", format, ...words, jsonName(buildImageNode(image, base)), target];
  return followImg(argv, onPart, { low, anyStatus: true });
}

/** Runs `qemu-img` with words that have `-p`. @param onPart called with the part that is done, 0 to 1 */
export async function followImg(
  words: readonly string[],
  onPart: (part: number) => void,
  options: Parameters<typeof exec>[1] = {},
): Promise<Finished> {
  const [readEnd, writeEnd] = pipe();
  const done = exec(["qemu-img", ...words], { ...options, stdout: writeEnd });
  closeSync(writeEnd);
  const followed = (async () => {
    // `    (12.34/100%)`, repeatedly.
    for await (const piece of createReadStream("", { fd: readEnd })) {
      const percent = /\((\d+\.\d+)\/100%\)\s*$/.exec(String(piece))?.[1];
      if (percent) onPart(Number(percent) / 100);
    }
  })();
  const [result] = await Promise.all([done, followed]);
  return result;
}
