import { basename, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import type { ReadImage } from "../machine/types.ts";
import { readOwnHeader } from "../qemu/image-header.ts";
import { HOST, imageName, WORK } from "./layout.ts";
import { lstatOf, requireReadableFile } from "../lib/read-file.ts";

/** More than SNAPSHOT_CHAIN allows: a chain of this length is a cycle. */
const LONGEST = 2000;

/** Symlink in WORKDIR through which a disk's backing file is named: to this VM's directory, or to that of the cloned VM. */
export type BackingLink = typeof WORK.hostLink | typeof WORK.baseLink | typeof WORK.repositoryLink;

/** The backing file name of a working disk on a snapshot's image. */
export const backingNameOf = (snapshot: string, disk: string, link: BackingLink = WORK.hostLink): string =>
  join(link, HOST.backups, snapshot, imageName(disk));

/**
 * The snapshot that a working disk's backing file is in; undefined if none, or if it is another disk's.
 * @param link of a linked clone, the snapshot is the cloned VM's
 */
export function parseBackingName(
  backing: string | undefined,
  disk: string,
  link: BackingLink = WORK.hostLink,
): string | undefined {
  const [first, backups, name = "", image, further] = (backing ?? "").split("/");
  const snapshot = /^[^.-]/.test(name) ? name : undefined;
  if (first !== link || backups !== HOST.backups || image === undefined || further !== undefined)
    return undefined;
  return snapshot !== undefined && backing === backingNameOf(snapshot, disk, link) ? snapshot : undefined;
}

/** Does the header of a working disk name an image in the repository? Then a part may be there only. */
export const isArriving = (disk: string): boolean =>
  parseBackingName(readOwnHeader(disk).backingName, basename(disk), WORK.repositoryLink) !== undefined;

/**
 * The image of a disk in a qcow2 snapshot, with its backing files. Each header is checked: the backing file may only be
 * the same disk in another snapshot of the same directory.
 * @param backups absolute; the directory of snapshots
 * @throws 66 if one of them is missing, 74 if one is not such an image
 */
export function findSnapshotImage(backups: string, snapshot: string, disk: string): ReadImage {
  const images: ReadImage[] = [];
  for (let name: string | undefined = snapshot; name !== undefined;) {
    const path = join(backups, name, imageName(disk));
    if (images.length === LONGEST || images.some((image) => image.path === path))
      throw disbelieved(path, "it is its own backing file");
    if (!lstatOf(join(backups, name))?.isDirectory())
      throw new VmError(
        "noInput",
        `cannot find the snapshot ${name}: ${describeUser(images, disk)} depends on it`,
        {
          hint: "put it back, or restore a snapshot that does not depend on it",
        },
      );
    if (lstatOf(path)?.isSymbolicLink()) throw disbelieved(path, "it is a symlink");
    requireReadableFile(path, "the snapshot's image");
    const { format, refersTo, backingName } = readOwnHeader(path);
    if (format !== "qcow2" || refersTo === "data file")
      throw disbelieved(
        path,
        refersTo ? `it refers to an external ${refersTo}` : `it is ${format}, not qcow2`,
      );
    images.push({ format, path });
    name = refersTo ? parentIn(path, backingName, disk) : undefined;
  }
  return images.reduceRight<ReadImage | undefined>((base, image) => ({ ...image, base }), undefined)!;
}

/** The snapshot in a backing file name `../NAME/disk-N.qcow2`. */
function parentIn(path: string, backing: string | undefined, disk: string): string {
  const match = /^\.\.\/([^/.-][^/]*)\/([^/]+)$/.exec(backing ?? "");
  if (match?.[2] !== imageName(disk))
    throw disbelieved(path, `it refers to an external backing file (${backing})`);
  return match[1]!;
}

const describeUser = (images: readonly ReadImage[], disk: string): string =>
  images.at(-1)?.path ?? `the working disk ${disk}`;

const disbelieved = (path: string, reason: string): VmError =>
  new VmError("io", `refusing ${path}: ${reason}`, {
    hint: "restore another snapshot: this image was modified or comes from elsewhere",
  });
