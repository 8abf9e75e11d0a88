import { ARCH } from "../machine/arch.ts";
import { ARCHES, type Arch } from "../machine/types.ts";
import { withFile } from "../lib/read-file.ts";

/** All magic numbers are below this offset. */
const HEAD_BYTES = 1024;

/** Pure: is this the start of a kernel image of an architecture? */
export const isKernelOf = (arch: Arch, head: Buffer): boolean =>
  ARCH[arch].kernelMagic.some(
    ([offset, magic]) => head.toString("latin1", offset, offset + magic.length) === magic,
  );

/** Possible architectures of a kernel image: some have the same magic numbers. */
export const archesOfKernel = (path: string): Arch[] =>
  withFile(path, (read) => {
    const head = read(0, HEAD_BYTES);
    return ARCHES.filter((arch) => isKernelOf(arch, head));
  });
