import { ARCH } from "../machine/arch.ts";
import { ARCHES, type Arch } from "../machine/types.ts";
import { withFile } from "./build/elf.ts";

/** All magic numbers are before this. */
const HEAD_BYTES = 1024;

/** Pure: is a boot image with this beginning one of an architecture? */
export const isKernelOf = (arch: Arch, head: Buffer): boolean =>
  ARCH[arch].kernelMagic.some(
    ([offset, magic]) => head.toString("latin1", offset, offset + magic.length) === magic,
  );

/** The architectures that a boot image may be of: some cannot be told apart by their heads. */
export const archesOfKernel = (path: string): Arch[] =>
  withFile(path, (read) => {
    const head = read(0, HEAD_BYTES);
    return ARCHES.filter((arch) => isKernelOf(arch, head));
  });
