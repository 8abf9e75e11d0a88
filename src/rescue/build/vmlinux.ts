import { chmodSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { exec } from "../../process/exec.ts";
import { interruption } from "../../process/signals.ts";
import { hasPvhEntry, withFile } from "./elf.ts";
import { execPipeline, findHostProgram } from "./host.ts";
import type { Kernel } from "./kernel.ts";

const PAGE_BYTES = 4096;

/**
 * Unpacks the kernel proper out of its boot image: without KVM that costs each start some seconds.
 * @param to a file that is not there yet
 * @returns whether it is there now: whole, and with the entry that qemu's `-kernel` needs (PVH)
 */
export async function extractVmlinux({ file, image }: Kernel, to: string, scratch: string): Promise<boolean> {
  if (!image) return false;
  const { unpacker, offset, length, sizeOffset } = image;
  const program = unpacker && findHostProgram(unpacker.program);
  if (!program) return false;
  const payload = join(scratch, "payload");
  try {
    const size = withFile(file, (read) => read(sizeOffset, 4).readUInt32LE(0));
    // dd takes the bytes at their place (GNU coreutils).
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
    // The boot image serves as well, only more slowly.
    if (interruption.aborted) throw interruption.reason;
  } finally {
    rmSync(payload, { force: true });
  }
  rmSync(to, { force: true });
  return false;
}
