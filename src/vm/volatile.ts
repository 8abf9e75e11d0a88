import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { log } from "../lib/log.ts";
import { realPath } from "../lib/read-file.ts";
import type { Workdir } from "../store/workdir.ts";
import { hasSnapshots } from "../store/no-vm.ts";

/** File systems in memory: linux/magic.h. */
const IN_MEMORY = new Set([0x01021994, 0x858458f6]);

/** A directory that a reboot empties: in memory, or one for temporary files (file-hierarchy(7)). */
export function isVolatile(directory: string): boolean {
  const path = realPath(directory) ?? directory;
  if (/^\/(tmp|run|dev\/shm)(\/|$)/.test(path)) return true;
  try {
    return IN_MEMORY.has(statfsSync(path).type);
  } catch {
    return false;
  }
}

let said = false;

/** Says once that nothing but a snapshot keeps a new VM. */
export function remarkVolatile(hostdir: string, work: Pick<Workdir, "dir" | "inplace">): void {
  if (said || work.inplace || hasSnapshots(hostdir) || !isVolatile(dirname(work.dir))) return;
  said = true;
  log.info(
    `  a reboot empties ${dirname(work.dir)}; to keep the VM: ${commandLine("backup")}; to keep a new one in its own directory: --inplace`,
  );
}
