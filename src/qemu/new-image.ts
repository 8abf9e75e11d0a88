import { saysNoZstd } from "../lib/program-messages.ts";
import { exec, processFailure } from "../process/exec.ts";

/** Compressors of qcow2, the better first: the second one every qemu has. */
const COMPRESSIONS = ["zstd", "zlib"] as const;

export interface NewImage {
  sizeBytes: number;
  /** Of a qcow2 image; nothing is looked up there: it need not lead anywhere yet. */
  backing?: string | undefined;
  /** What will be written is compressed. */
  compressed?: boolean;
}

/** Makes an empty qcow2 image, or one of changes to another. */
export async function createImage(path: string, image: NewImage): Promise<void> {
  const over = image.backing === undefined ? [] : ["-u", "-F", "qcow2", "-b", image.backing];
  for (const compression of image.compressed ? COMPRESSIONS : [undefined]) {
    const options = compression ? ["-o", `compression_type=${compression}`] : [];
    const argv = [
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      ...options,
      ...over,
      path,
      String(image.sizeBytes),
    ];
    const result = await exec(argv, { anyStatus: true });
    if (result.status === 0) return;
    if (compression === "zstd" && saysNoZstd(result.stderr)) continue;
    throw processFailure(`cannot create ${path}`, result);
  }
}

/** Has a qcow2 image note, from now on, where it is written to. What it lies over is not looked at. */
export async function addBitmap(path: string, name: string): Promise<void> {
  const image = { driver: "qcow2", backing: null, file: { driver: "file", filename: path } };
  await exec(["qemu-img", "bitmap", "--add", `json:${JSON.stringify(image)}`, name], {
    what: `cannot follow the changes in ${path}`,
  });
}
