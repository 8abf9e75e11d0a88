import { closeSync, createReadStream, statSync } from "node:fs";
import { exec, processFailure, ProcessError, type Finished } from "../process/exec.ts";
import { gentle } from "../process/gentle.ts";
import { pipe } from "../process/libc.ts";
import { VmError } from "../lib/errors.ts";
import { saysImageLocked, saysNoZstd } from "../lib/program-messages.ts";
import { counted } from "../lib/text.ts";
import type { ImageFormat, ReadImage } from "../machine/types.ts";
import { buildImageNode } from "./devices/image.ts";

/** Makes a qcow2 image that holds what differs from another one. */
export async function createOverlay(path: string, base: ReadImage, sizeBytes: number): Promise<void> {
  const over = ["-b", base.path, "-F", base.format];
  await exec(["qemu-img", "create", "-q", "-f", "qcow2", ...over, path, String(sizeBytes)], {
    what: `cannot create ${path}`,
  });
}

/** Grows a qcow2 image. */
export async function resizeImage(path: string, sizeBytes: number): Promise<void> {
  await exec(["qemu-img", "resize", "-q", "-f", "qcow2", path, String(sizeBytes)], {
    what: `cannot grow ${path}`,
  });
}

const jsonName = (node: object): string => `json:${JSON.stringify(node)}`;

export interface Measured {
  /** The size the guest sees. */
  virtualBytes: number;
  /** What a qcow2 image with this content occupies at most. */
  neededBytes: number;
}

/** Images of these formats may be compressed; others hold at least what they hold. */
const COMPRESSIBLE: readonly ImageFormat[] = ["qcow2", "vmdk"];

/** qcow2's own tables: 8 bytes for each cluster of 64 KiB, and a little more. */
const tablesOf = (virtualBytes: number): number => (1 << 20) + Math.ceil(virtualBytes / 4096);

/** Exit statuses of `qemu-img check` without bad news: clean, leaks alone, nothing to check (qemu-img(1)). */
const WHOLE: readonly (number | null)[] = [0, 3, 63];

/**
 * Checks an image's metadata.
 * @param low other programs go first
 * @returns why it is damaged, as far as its format lets that be seen; undefined where it is whole
 */
export async function findImageDamage(image: ReadImage, low = false): Promise<string | undefined> {
  const argv = ["qemu-img", "check", "--output=json", jsonName(buildImageNode(image))];
  const { status, stdout, stderr } = await exec(low ? gentle(argv) : argv, { anyStatus: true });
  if (WHOLE.includes(status)) return undefined;
  if (status === 2) {
    const { corruptions = 0 } = JSON.parse(stdout) as { corruptions?: number };
    return `qemu-img check finds ${counted(corruptions, "error")} in it`;
  }
  const last = stderr.trim().split("\n").at(-1) ?? "";
  return (
    last.replace(/^qemu-img: (Could not open '.*': )?/, "") || `qemu-img check ended with status ${status}`
  );
}

/**
 * Looks whether an image is whole: qemu reads what is missing at the end of a half one as zeroes.
 * @throws 74 when it is not, as far as its format lets that be seen
 */
export async function checkImage(image: ReadImage): Promise<void> {
  const damage = await findImageDamage(image);
  if (damage === undefined) return;
  throw new VmError("io", `the image ${image.path} (${image.format}) is damaged: ${damage}`, {
    hint: "compare its checksum with what its maker says, and get it anew",
  });
}

/**
 * Measures an image that is to be copied.
 * @param base the image it lies over, which is copied with it
 * @throws 75 while a running VM writes to it, 74 when it cannot be read
 */
export async function measureImage(image: ReadImage, base?: ReadImage): Promise<Measured> {
  const ask = async (words: string[], asked: ReadImage): Promise<Record<string, number>> => {
    const name = jsonName(buildImageNode(asked));
    const result = await exec(["qemu-img", ...words, "--output=json", name], { anyStatus: true });
    if (result.status === 0) return JSON.parse(result.stdout) as Record<string, number>;
    if (saysImageLocked(result.stderr))
      throw new VmError("busy", `the image ${image.path} is in use: a running VM writes to it`, {
        hint: "power that VM off first",
      });
    throw new ProcessError(`cannot read the image ${image.path} (${image.format})`, result);
  };
  // `info` opens nothing that lies below, and takes no word about it.
  const virtualBytes = (await ask(["info"], { ...image, base: undefined }))["virtual-size"]!;
  const required = (await ask(["measure", "-O", "qcow2"], { ...image, base })).required!;
  if (base || image.blockDevice || COMPRESSIBLE.includes(image.format))
    return { virtualBytes, neededBytes: required };
  // Not of every format does qemu-img see which parts are empty.
  const held = statSync(image.path).blocks * 512 + tablesOf(virtualBytes);
  return { virtualBytes, neededBytes: Math.min(required, held) };
}

/**
 * Copies an image into a new sparse qcow2 image that stands alone. No byte passes through us.
 * @param base the image it lies over, which is copied with it
 * @param onPart how much has been done, 0 to 1
 */
export async function convertImage(
  image: ReadImage,
  target: string,
  onPart: (part: number) => void,
  base?: ReadImage,
): Promise<void> {
  const result = await runConvert(image, target, onPart, { base });
  if (result.status !== 0) throw processFailure(`cannot copy the image ${image.path}`, result);
}

/**
 * The same, compressed: by zstd where qemu-img has it.
 * @param rate bytes per second; 0: as fast as may be
 * @param low other programs go first
 */
export async function compressImage(
  image: ReadImage,
  target: string,
  onPart: (part: number) => void,
  { rate, low }: { rate: number; low: boolean },
): Promise<void> {
  // Out of order and many at a time: compression takes the time (qemu-img(1), convert).
  const words = ["-c", "-W", "-m", "16", ...(rate > 0 ? ["-r", String(rate)] : [])];
  const zstd = ["-o", "compression_type=zstd"];
  let result = await runConvert(image, target, onPart, { words: [...words, ...zstd], low });
  if (result.status !== 0 && saysNoZstd(result.stderr))
    result = await runConvert(image, target, onPart, { words, low });
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
  }: { words?: string[]; low?: boolean; base?: ReadImage | undefined },
): Promise<Finished> {
  const [readEnd, writeEnd] = pipe();
  const argv = ["qemu-img", "convert", "-p", "-O", "qcow2", ...words];
  argv.push(jsonName(buildImageNode(image, base)), target);
  const converted = exec(low ? gentle(argv) : argv, { stdout: writeEnd, anyStatus: true });
  closeSync(writeEnd);
  const followed = (async () => {
    // `    (12.34/100%)`, again and again.
    for await (const piece of createReadStream("", { fd: readEnd })) {
      const percent = /\((\d+\.\d+)\/100%\)\s*$/.exec(String(piece))?.[1];
      if (percent) onPart(Number(percent) / 100);
    }
  })();
  const [result] = await Promise.all([converted, followed]);
  return result;
}
