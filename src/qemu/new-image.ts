import { statSync, truncateSync } from "node:fs";
import { saysNoZstd } from "../lib/program-messages.ts";
import { exec, processFailure } from "../process/exec.ts";

/** Compression types of qcow2, best first. Every qemu has zlib. */
const IMAGE_COMPRESSIONS = ["zstd", "zlib"] as const;

export interface NewImage {
  sizeBytes: number;
  /** Name of a qcow2 backing file, which need not exist yet. */
  backing?: string | undefined;
  /** Use the best compression type for writes. */
  compressed?: boolean;
  /** A guest writes to it: see `SUBCLUSTERS`. */
  subclusters?: boolean;
}

/**
 * Options of an overlay that a guest writes to. Its first 4 KiB of a cluster are allocated alone; with plain clusters, 64 KiB
 * are, and the rest is copied from the backing file (docs/interop/qcow2.txt, "Extended L2 Entries"; qemu 5.2). Discards free
 * clusters of 128 KiB.
 */
export const SUBCLUSTERS = "extended_l2=on,cluster_size=128k";

/** A multiple of each sector size of disks. */
const SECTOR_BYTES = 4096;

/** Appends zeroes to a new image, so that its last sector is complete: see `chooseDiskIo`. */
export function endOnSector(path: string): void {
  const { size } = statSync(path);
  const rest = size % SECTOR_BYTES;
  if (rest > 0) truncateSync(path, size + SECTOR_BYTES - rest);
}

/** Creates an empty qcow2 image, or an overlay. */
export async function createImage(path: string, image: NewImage): Promise<void> {
  const backing = image.backing === undefined ? [] : ["-u", "-F", "qcow2", "-b", image.backing];
  for (const compression of image.compressed ? IMAGE_COMPRESSIONS : [undefined]) {
    const options = [
      ...(compression ? ["-o", `compression_type=${compression}`] : []),
      ...(image.subclusters ? ["-o", SUBCLUSTERS] : []),
    ];
    const argv = [
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      ...options,
      ...backing,
      path,
      String(image.sizeBytes),
    ];
    const result = await exec(argv, { anyStatus: true });
    if (result.status === 0) return endOnSector(path);
    if (compression === "zstd" && saysNoZstd(result.stderr)) continue;
    throw processFailure(`cannot create ${path}`, result);
  }
}

/** Adds a persistent dirty bitmap to a qcow2 image, without opening its backing file. */
export async function addBitmap(path: string, name: string): Promise<void> {
  const image = { driver: "qcow2", backing: null, file: { driver: "file", filename: path } };
  await exec(["qemu-img", "bitmap", "--add", `json:${JSON.stringify(image)}`, name], {
    what: `cannot add a dirty bitmap to ${path}`,
  });
}
