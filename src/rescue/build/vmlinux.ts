import { chmodSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { exec } from "../../process/exec.ts";
import { interruption } from "../../process/signals.ts";
import { hasPvhEntry } from "./elf.ts";
import { withFile } from "../../lib/read-file.ts";
import { execPipeline, findHostProgram } from "./host.ts";
import type { Kernel } from "./kernel.ts";

const PAGE_BYTES = 4096;

/**
 * Extracts the uncompressed kernel from its boot image: without KVM decompression takes seconds at each start.
 * @param to a file that does not exist yet
 * @returns whether it was extracted completely, with the entry point that qemu's `-kernel` needs (PVH)
 */
export async function extractVmlinux({ file, image }: Kernel, to: string, scratch: string): Promise<boolean> {
  if (!image) return false;
  const { unpacker, offset, length, sizeOffset } = image;
  const program = unpacker && findHostProgram(unpacker.program);
  if (!program) return false;
  const payload = join(scratch, "payload");
  try {
    const size = withFile(file, (read) => read(sizeOffset, 4).readUInt32LE(0));
    // dd with skip_bytes and count_bytes (GNU coreutils).
    const count = ["iflag=skip_bytes,count_bytes", `skip=${offset}`, `count=${length}`];
    await exec(["dd", `if=${file}`, `of=${payload}`, "status=none", `bs=${PAGE_BYTES}`, ...count], {
      what: "cannot take the kernel out of its boot image",
    });
    await execPipeline(payload, [[program, ...unpacker.args]], to, { what: "cannot unpack the kernel" });
    if (statSync(to).size === size && withFile(to, hasPvhEntry)) {
      chmodSync(to, 0o600);
      return true;
    }
  } catch {
    // The boot image works as well, but starts more slowly.
    if (interruption.aborted) throw interruption.reason;
  } finally {
    rmSync(payload, { force: true });
  }
  rmSync(to, { force: true });
  return false;
}
