import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { exec } from "../../process/exec.ts";
import type { Compression } from "../choices.ts";
import { execPipeline, requireHostProgram } from "./host.ts";

/** Compressors whose output a kernel can decompress (Linux, lib/decompress*.c), at a fast level. */
const PACKERS = {
  none: undefined,
  gzip: ["gzip", "-c", "-n", "-3"],
  zstd: ["zstd", "-c", "-q", "-T0", "-3"],
  // The kernel supports the legacy format of lz4 only.
  lz4: ["lz4", "-c", "-q", "-l", "-1"],
  // The kernel supports CRC32 only.
  xz: ["xz", "-c", "-T0", "-1", "--check=crc32"],
} as const satisfies Record<Compression, readonly string[] | undefined>;

/** The full command, or undefined for none. @throws VmError if the program is not installed */
export function resolvePacker(compress: Compression): string[] | undefined {
  const argv = PACKERS[compress];
  return argv && [requireHostProgram(argv[0], argv[0]), ...argv.slice(1)];
}

/** Packs a tree into a new initramfs, with all files owned by root (Documentation/driver-api/early-userspace). */
export async function packInitrd(options: {
  root: string;
  to: string;
  packer: string[] | undefined;
  scratch: string;
}): Promise<void> {
  const { root, to, packer, scratch } = options;
  const busybox = requireHostProgram("busybox", "busybox");
  const what = "cannot pack the rescue";
  const { stdout } = await exec([busybox, "find", "."], { cwd: root, what });
  const list = join(scratch, "files");
  // Sorted: directories precede their contents, and the order is reproducible.
  writeFileSync(
    list,
    stdout
      .split("\n")
      .filter(Boolean)
      .toSorted()
      .map((path) => `${path}\n`)
      .join(""),
  );
  const archive = [busybox, "cpio", "-o", "-H", "newc", "-R", "0:0"];
  await execPipeline(list, packer ? [archive, packer] : [archive], to, { cwd: root, what });
}
