import { closeSync, openSync, readSync } from "node:fs";
import { ARCH } from "../machine/arch.ts";
import { ARCHES, type Arch } from "../machine/types.ts";

/** All magic numbers are before this. */
const HEAD_BYTES = 1024;

/** Pure: is a boot image with this beginning one of an architecture? */
export const isKernelOf = (arch: Arch, head: Buffer): boolean =>
  ARCH[arch].kernelMagic.some(
    ([offset, magic]) => head.toString("latin1", offset, offset + magic.length) === magic,
  );

/** The architectures that a boot image may be of: some cannot be told apart by their heads. */
export function archesOfKernel(path: string): Arch[] {
  const fd = openSync(path, "r");
  try {
    const head = Buffer.alloc(HEAD_BYTES);
    readSync(fd, head);
    return ARCHES.filter((arch) => isKernelOf(arch, head));
  } finally {
    closeSync(fd);
  }
}
