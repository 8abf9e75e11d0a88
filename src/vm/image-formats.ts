/**
 * Images that are given without a format keep the one that was found at their first use: a guest may write another
 * format's header into a raw image, and the next run must not follow what that says.
 */
import { existsSync, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
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
 * The format in which an image that is none of the VM's own disks is opened.
 * @param path absolute
 * @throws 78 where it is not known and the image may refer to other files, or is not what it was
 */
export function chooseFormat({ settings }: Vm, image: ImageRequest, path: string): ImageFormat {
  if (image.format) return image.format;
  const known = settings.IMAGE_FORMATS.find((item) => item.path === path)?.format;
  // What is in it later is the guest's affair.
  if (known === undefined) refuseUnlikely(image, path);
  const { format, refersTo } = readImageHeader(path);
  const other = `if it was replaced, take it out of ${NAME} in ${HOST.guestEnv}`;
  if (known === "raw") {
    if (format !== "raw")
      warnOnce(
        `the image ${path} begins like a ${format} image; it is used as raw, as at its first use; ${other}`,
      );
    return known;
  }
  if (known !== undefined && known !== format)
    throw new VmError("config", `the image ${path} was ${known} at its first use, and is ${format} now`, {
      hint: `${other}, or say its format: --image=${image.bus}=${format}=${path}`,
    });
  // Only of these two is it known here that they stand alone.
  if (format === "raw" || (format === "qcow2" && !refersTo)) return format;
  throw new VmError(
    "config",
    `the image ${path} begins like a ${format} image that may refer to other files`,
    {
      hint: `a guest can write such a header into a raw image: ${shellQuote(`--image=${image.bus}=raw=${path}`)}; only if you made it so: ${shellQuote(`--image=${image.bus}=${format}=${path}`)}`,
    },
  );
}

/**
 * An archive, say, is hardly meant as a disk; some pass files to a guest in this way, and say so.
 * @throws 74 with how to say it
 */
function refuseUnlikely({ bus }: Pick<ImageRequest, "bus">, path: string): void {
  try {
    refuseNonImage(path, "cannot use the image");
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    const hint = `${error.hint}\nif the guest is to have the file as it is: ${shellQuote(`--image=${bus}=raw=${path}`)}, or ${bus}=raw=… in IMAGES of ${HOST.guestEnv}`;
    throw new VmError(error.code, error.message, { cause: error, hint });
  }
}

/** Keeps the formats of images that were given without one. @param disks one for each entry of IMAGES */
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
 * What guest.env of a new VM says of images that are there already.
 * @param images `TYPE=[FMT=]PATH`, parsed
 * @throws 74 for a file that is hardly meant as a disk
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

/** Carries what is known over to the settings of a snapshot that is being restored in `directory`. */
export function carryFormats({ settings }: Vm, directory: string): void {
  if (settings.IMAGE_FORMATS.length > 0) saveFormats(directory, format(settings.IMAGE_FORMATS));
}
