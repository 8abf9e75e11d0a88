import { realpathSync, statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { counted } from "../lib/text.ts";
import { formatSize } from "../lib/size.ts";
import type { DiskRequest, ReadImage } from "../machine/types.ts";
import { readImageHeader } from "../qemu/image-header.ts";
import {
  checkImage,
  convertImage,
  createOverlay,
  measureImage,
  resizeImage,
  type Measured,
} from "../qemu/img.ts";
import { refuseNoImage } from "../qemu/no-image.ts";
import { shellQuote } from "../lib/shell.ts";
import type { Context } from "../vm/context.ts";
import type { CreateOptions, FromRequest } from "./create-options.ts";
import { requireReadableFile } from "../lib/read-file.ts";
import type { Vm } from "../vm/find.ts";

/** An image that a disk is to be made from: looked at, and harmless. */
export interface ImageSource extends Measured {
  image: ReadImage;
  linked: boolean;
}

/**
 * Looks at the image that a VM is to be made from.
 * @throws 66 when there is none, 74 when it refers to other files or is no image, 75 while a VM writes to it
 */
export async function inspectSource(context: Context, { image, linked }: FromRequest): Promise<ImageSource> {
  const named = requireReadableFile(resolve(context.cwd, image), "the image");
  const blockDevice = statSync(named).isBlockDevice();
  // A link may lead to a newer file tomorrow; that of a volume leads to another number after each start.
  const path = blockDevice ? named : realpathSync(named);
  refuseNoImage(path, "cannot make a disk from");
  const { format, refersTo } = readImageHeader(path);
  if (refersTo)
    throw new VmError("io", `refusing the image ${path}: it refers to an external ${refersTo}`, {
      hint: `such a name can show the guest any file of this host; if you made it yourself, make one whole file of it: qemu-img convert -O qcow2 ${shellQuote(path)} WHOLE.qcow2`,
    });
  const found: ReadImage = { path, format, blockDevice };
  const measured = await measureImage(found);
  await checkImage(found);
  return { image: found, linked, ...measured };
}

/**
 * The disks to make. From an image, the first entry of DISKS gives the first disk's bus, and its size where
 * that is larger; `--disk-size` gives it exactly.
 * @throws 64 when the image would have to shrink
 */
export function planDisks(
  { settings, origins }: Vm,
  options: CreateOptions,
  source: ImageSource | undefined,
): DiskRequest[] {
  if (!source) return settings.DISKS;
  const [first, ...others] = settings.DISKS;
  const { virtualBytes } = source;
  const wanted = options.from?.sizeBytes;
  if (wanted !== undefined && wanted < virtualBytes)
    throw new VmError(
      "usage",
      `--disk-size: ${formatSize(wanted)} is less than the image has: ${formatSize(virtualBytes)}`,
      {
        hint: "a disk made from an image can only grow: what is at its end would be lost",
      },
    );
  // The kernels of cloud images know virtio, and often no AHCI.
  const cloud = options.cloudInit !== undefined && origins.DISKS.kind === "default";
  const bus = cloud ? "VIRT" : (first?.bus ?? "AHCI");
  if (wanted === undefined && (first?.sizeBytes ?? 0) > virtualBytes)
    log.info(
      `the disk has ${formatSize(first!.sizeBytes)} where the image has ${formatSize(virtualBytes)}; to keep the image's size: --disk-size=${virtualBytes}`,
    );
  return [{ bus, sizeBytes: wanted ?? Math.max(virtualBytes, first?.sizeBytes ?? 0) }, ...others];
}

/** A copy holds the image as it is now. */
function warnAboutUncopiedSnapshots({ path, format, blockDevice }: ReadImage): void {
  if (format !== "qcow2" || blockDevice) return;
  const count = readImageHeader(path).qcow2?.internalSnapshots ?? 0;
  if (count > 0)
    log.warn(
      `${path} has ${counted(count, "internal snapshot")} (qemu-img snapshot -l), which are not copied`,
    );
}

/** Makes the first disk: a copy of the image, or what will differ from it. */
export async function makeDisk(
  context: Context,
  source: ImageSource,
  target: string,
  sizeBytes: number,
): Promise<void> {
  const { image, linked, virtualBytes, neededBytes } = source;
  if (linked) return createOverlay(target, image, sizeBytes);
  warnAboutUncopiedSnapshots(image);
  const meter = context.meter(`copy ${basename(image.path)}`, neededBytes);
  try {
    await convertImage(image, target, (part) => meter.update(part * neededBytes));
  } finally {
    meter.finish();
  }
  if (sizeBytes > virtualBytes) await resizeImage(target, sizeBytes);
}
