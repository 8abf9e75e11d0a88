import { exec } from "../process/exec.ts";

/**
 * Makes an image of changes to another one.
 * @param backing relative to the new image's directory; a qcow2 image
 */
export async function createOverlay(path: string, backing: string): Promise<void> {
  await exec(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, path], {
    what: `cannot create ${path}`,
  });
}
