/**
 * Images given without a format keep the one detected at first use: a guest can write another format's header into a raw
 * image, and the next run must not trust that header.
 */
import { existsSync, statSync } from "node:fs";
import { isAbsolute, join, relative } from "node:path";
import { readSmall } from "../lib/read-file.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import type { Disk, ImageFormat, ImageRequest } from "../machine/types.ts";
import { readImageHeader } from "../qemu/image-header.ts";
import { refuseNonImage } from "../qemu/non-image.ts";
import { shellQuote } from "../lib/shell.ts";
import { replaceFile } from "../store/files.ts";
import { withAssignment } from "../store/guest-env.ts";
import { HOST, isDiskName } from "../store/layout.ts";
import type { Vm } from "./find.ts";
import type { Workdir } from "../store/workdir.ts";

const NAME = "IMAGE_FORMATS";

/**
 * The format for opening an image that is not one of the VM's own disks.
 * @param path absolute
 * @throws 78 if none is recorded and the image may refer to other files, or if the recorded one does not match
 */
export function chooseFormat({ settings }: Vm, image: ImageRequest, path: string): ImageFormat {
  if (image.format) return image.format;
  const known = settings.IMAGE_FORMATS.find((item) => item.path === path)?.format;
  // Only at first use: later the guest may write anything into it.
  if (known === undefined) refuseUnlikely(image, path);
  const { format, refersTo } = readImageHeader(path);
  const other = `if it was replaced, remove it from ${NAME} in ${HOST.guestEnv}`;
  if (known === "raw") {
    if (format !== "raw")
      warnOnce(`the image ${path} has a ${format} header, but is used as raw, as at first use; ${other}`);
    return known;
  }
  if (known !== undefined && known !== format)
    throw new VmError("config", `the image ${path} was ${known} at first use, and is ${format} now`, {
      hint: `${other}, or give its format: --image=${image.bus}=${format}=${path}`,
    });
  // Only these two are known to be standalone.
  if (format === "raw" || (format === "qcow2" && !refersTo)) return format;
  throw new VmError("config", `the image ${path} has a ${format} header, which may refer to other files`, {
    hint: `a guest can write such a header into a raw image; if it is raw: ${shellQuote(`--image=${image.bus}=raw=${path}`)}; only if you created it with that format: ${shellQuote(`--image=${image.bus}=${format}=${path}`)}`,
  });
}

/**
 * Refuses archives and the like, unless given as raw: a way to pass a file to a guest.
 * @throws 74 with that hint
 */
function refuseUnlikely({ bus }: Pick<ImageRequest, "bus">, path: string): void {
  try {
    refuseNonImage(path, "cannot use the image");
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    const hint = `${error.hint}\nto give the guest the file itself as a disk: ${shellQuote(`--image=${bus}=raw=${path}`)}, or ${bus}=raw=… in IMAGES of ${HOST.guestEnv}`;
    throw new VmError(error.code, error.message, { cause: error, hint });
  }
}

/** Records the formats of images given without one. @param disks one for each entry of IMAGES */
export function keepFormats({ hostdir, settings }: Vm, work: Workdir, disks: readonly Disk[]): void {
  const found = settings.IMAGES.flatMap(({ format }, index) => {
    const disk = disks[index]!;
    if (format !== undefined || isOwnDisk(work, disk.path)) return [];
    return settings.IMAGE_FORMATS.some(({ path }) => path === disk.path) ? [] : [disk];
  });
  if (found.length === 0) return;
  const all = [...settings.IMAGE_FORMATS, ...found];
  settings.IMAGE_FORMATS = all.map(({ format, path }) => ({ format, path }));
  for (const directory of new Set([work.dir, hostdir])) saveFormats(directory, format(all));
}

const isOwnDisk = (work: Workdir, path: string): boolean =>
  path.startsWith(`${work.dir}/`) && isDiskName(path.slice(work.dir.length + 1));

const format = (all: readonly { format: ImageFormat; path: string }[]): string[] =>
  all.map((item) => `${item.format}=${item.path}`);

function saveFormats(directory: string, value: SettingValue): void {
  const file = join(directory, HOST.guestEnv);
  const text = readSmall(file);
  if (text !== undefined) replaceFile(file, withAssignment(text, NAME, value));
}

/**
 * An image as guest.env names it: one in HOSTDIR by its path there, so that a copy of the VM has its own. A raw one gets
 * its format: a recorded one is found by the absolute path.
 * @param path absolute
 * @param detected its format
 */
export function storableImage(
  hostdir: string,
  image: ImageRequest,
  path: string,
  detected: ImageFormat | undefined,
): ImageRequest {
  const inside = relative(hostdir, path);
  if (inside === "" || inside === ".." || inside.startsWith("../")) return { ...image, path };
  const isRaw = image.format === undefined && detected === "raw";
  return { ...image, path: `@HOSTDIR@/${inside}`, ...(isRaw && { format: "raw" }) };
}

/**
 * The formats of existing images, for guest.env of a new VM.
 * @param images `TYPE=[FMT=]PATH`, parsed
 * @throws 74 for a file that is no disk image, such as an archive
 */
export function findFormats(images: readonly ImageRequest[]): string[] {
  return images.flatMap(({ bus, format: given, path }) => {
    if (given || !isAbsolute(path) || !existsSync(path)) return [];
    const stats = statSync(path);
    if (!stats.isFile() && !stats.isBlockDevice()) return [];
    refuseUnlikely({ bus }, path);
    const header = readImageHeader(path);
    return header.format === "raw" || (header.format === "qcow2" && !header.refersTo)
      ? [`${header.format}=${path}`]
      : [];
  });
}

/** Copies the recorded formats to the settings of a snapshot that is being restored in `directory`. */
export function carryFormats({ settings }: Vm, directory: string): void {
  if (settings.IMAGE_FORMATS.length > 0) saveFormats(directory, format(settings.IMAGE_FORMATS));
}
