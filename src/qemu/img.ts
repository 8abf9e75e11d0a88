import { closeSync, constants, openSync } from "node:fs";
import { exec, ProcessError } from "../process/exec.ts";
import { isRangeLocked } from "../process/libc.ts";
import { VmError } from "../lib/errors.ts";

/** Makes an empty qcow2 image. */
export async function createImage(path: string, sizeBytes: number): Promise<void> {
  await exec(["qemu-img", "create", "-q", "-f", "qcow2", path, String(sizeBytes)], {
    what: `cannot create ${path}`,
  });
}

export interface ImageInfo {
  "virtual-size": number;
  format: string;
}

/**
 * Reads what qemu-img says of an image of ours.
 * @returns undefined when a running qemu holds it: its lock is the second witness of a running VM
 */
export async function imageInfo(path: string): Promise<ImageInfo | undefined> {
  // JSON: a file name such as `x:y` or `json:…` is then no more than a name.
  const image = `json:${JSON.stringify({ driver: "qcow2", backing: null, file: { driver: "file", filename: path } })}`;
  const result = await exec(["qemu-img", "info", "--output=json", image], { anyStatus: true });
  if (result.status === 0) return JSON.parse(result.stdout) as ImageInfo;
  if (/Failed to get .*lock/.test(result.stderr)) return undefined;
  throw new VmError("io", new ProcessError(`cannot read the image ${path}`, result).message, {
    hint: "restore the VM from a snapshot, or repair the image: qemu-img check -r leaks",
  });
}

/** Where qemu locks an image, a byte for each thing it does or allows (block/file-posix.c). */
const LOCKED_FROM = 100;
const LOCKED_BYTES = 200;

/** Has a qemu this image open? Asks the kernel: a process that has died holds nothing. */
export function isImageInUse(path: string): boolean {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return false;
  }
  try {
    return isRangeLocked(fd, LOCKED_FROM, LOCKED_BYTES);
  } finally {
    closeSync(fd);
  }
}
