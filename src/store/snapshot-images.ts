import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import type { ReadImage } from "../machine/types.ts";
import { readOwnHeader } from "../qemu/image-header.ts";
import { lstatOf } from "./files.ts";
import { HOST, imageName, WORK } from "./layout.ts";
import { requireReadableFile } from "../lib/read-file.ts";

/** More than SNAPSHOT_CHAIN can ever be: a chain this long leads round and round. */
const LONGEST = 2000;

/** How a working disk names the snapshot's image that it is changes to. */
export const backingNameOf = (snapshot: string, disk: string): string =>
  join(WORK.hostLink, HOST.backups, snapshot, imageName(disk));

/** The snapshot that a working disk's header names; undefined when it names none, or not this disk in it. */
export function parseBackingName(backing: string | undefined, disk: string): string | undefined {
  const match = /^\.host\/backups\/([^/.-][^/]*)\/[^/]+$/.exec(backing ?? "");
  return match && backing === backingNameOf(match[1]!, disk) ? match[1] : undefined;
}

/**
 * The image of a disk in a snapshot of the format qcow2, with those it is changes to. Each header is looked at, and
 * may name the same disk in another snapshot beside it, and nothing else.
 * @param backups absolute; the directory of snapshots
 * @throws 66 when one of them is gone, 74 when one is not what it should be
 */
export function findSnapshotImage(backups: string, snapshot: string, disk: string): ReadImage {
  const images: ReadImage[] = [];
  for (let name: string | undefined = snapshot; name !== undefined;) {
    const path = join(backups, name, imageName(disk));
    if (images.length === LONGEST || images.some((image) => image.path === path))
      throw disbelieved(path, "it builds on itself");
    if (!lstatOf(join(backups, name))?.isDirectory())
      throw new VmError(
        "noInput",
        `the snapshot ${name} is gone: ${describeUser(images, disk)} builds on it`,
        {
          hint: "put it back, or restore a snapshot that does not build on it",
        },
      );
    if (lstatOf(path)?.isSymbolicLink()) throw disbelieved(path, "it is a link");
    requireReadableFile(path, "the snapshot's image");
    const { format, refersTo, backingName } = readOwnHeader(path);
    if (format !== "qcow2" || refersTo === "data file")
      throw disbelieved(path, refersTo ? `it names a ${refersTo}` : `it is ${format}, not qcow2`);
    images.push({ format, path });
    name = refersTo ? parentIn(path, backingName, disk) : undefined;
  }
  return images.reduceRight<ReadImage | undefined>((base, image) => ({ ...image, base }), undefined)!;
}

/** The snapshot that an image in one names as `../NAME/disk-N.qcow2`. */
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
    hint: "it was changed, or comes from somewhere else: restore another snapshot",
  });
