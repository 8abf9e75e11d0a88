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
import { refuseNonImage } from "../qemu/non-image.ts";
import { shellQuote } from "../lib/shell.ts";
import type { Context } from "../vm/context.ts";
import type { CreateOptions, FromRequest } from "./create-options.ts";
import { requireReadableFile } from "../lib/read-file.ts";
import type { Vm } from "../vm/find.ts";

/** An image to create a disk from, after inspection. */
export interface ImageSource extends Measured {
  image: ReadImage;
  linked: boolean;
}

/**
 * Inspects the image that a VM is to be created from.
 * @throws 66 if it does not exist, 74 if it refers to other files or is not an image, 75 if a VM writes to it
 */
export async function inspectSource(context: Context, { image, linked }: FromRequest): Promise<ImageSource> {
  const named = requireReadableFile(resolve(context.cwd, image), "the image");
  const blockDevice = statSync(named).isBlockDevice();
  // A symlink to a file may get another target later. A block device keeps its name: its number changes at each boot.
  const path = blockDevice ? named : realpathSync(named);
  refuseNonImage(path, "cannot create a disk from");
  const { format, refersTo } = readImageHeader(path);
  if (refersTo)
    throw new VmError("io", `refusing the image ${path}: it refers to an external ${refersTo}`, {
      hint: `convert it if you trust it: qemu-img convert -O qcow2 ${shellQuote(path)} STANDALONE.qcow2; the guest could read any file of this host through such a reference`,
    });
  const found: ReadImage = { path, format, blockDevice };
  const measured = await measureImage(found);
  await checkImage(found);
  return { image: found, linked, ...measured };
}

/**
 * Disks to create. From an image, the first disk has the bus of the first entry of DISKS, and the larger of both sizes;
 * `--disk-size` overrides it.
 * @throws 64 if the image would have to shrink
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
      `--disk-size: ${formatSize(wanted)} is less than the size of the image, ${formatSize(virtualBytes)}`,
      {
        hint: "give at least the size of the image: data at its end would be lost",
      },
    );
  // Kernels of cloud images have drivers for virtio, and often none for AHCI.
  const cloud = options.cloudInit !== undefined && origins.DISKS.kind === "default";
  const bus = cloud ? "VIRT" : (first?.bus ?? "AHCI");
  if (wanted === undefined && (first?.sizeBytes ?? 0) > virtualBytes)
    log.info(
      `the disk has ${formatSize(first!.sizeBytes)}, the image ${formatSize(virtualBytes)}; keep the image's size: --disk-size=${virtualBytes}`,
    );
  return [{ bus, sizeBytes: wanted ?? Math.max(virtualBytes, first?.sizeBytes ?? 0) }, ...others];
}

/** qemu-img convert copies the current state only. */
function warnAboutUncopiedSnapshots({ path, format, blockDevice }: ReadImage): void {
  if (format !== "qcow2" || blockDevice) return;
  const count = readImageHeader(path).qcow2?.internalSnapshots ?? 0;
  if (count > 0)
    log.warn(
      `${path} has ${counted(count, "internal snapshot")} (qemu-img snapshot -l), which are not copied`,
    );
}

/** Creates a disk from an image: a copy of the image, or an overlay on it. */
export async function createDisk(
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
