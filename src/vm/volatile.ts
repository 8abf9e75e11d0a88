import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { log } from "../lib/log.ts";
import { realPath } from "../lib/read-file.ts";
import type { Work, Workdir } from "../store/workdir.ts";
import type { ProcessFacts } from "./context.ts";
import { hasSnapshots } from "../store/no-vm.ts";

/** In-memory filesystems (linux/magic.h). */
const IN_MEMORY = new Set([0x01021994, 0x858458f6]);

/** Does a reboot empty the directory? In memory, or for temporary files (file-hierarchy(7)). */
export function isVolatile(directory: string): boolean {
  const path = realPath(directory) ?? directory;
  if (/^\/(tmp|run|dev\/shm)(\/|$)/.test(path)) return true;
  try {
    return IN_MEMORY.has(statfsSync(path).type);
  } catch {
    return false;
  }
}

/** Where new working files go: beside the present ones, if TMPDIR would not survive a reboot, and they do. */
export const findTmpdir = ({ tmpdir, options }: ProcessFacts, work: Work): string =>
  work.state === "present" &&
  !work.inplace &&
  options.settings.INPLACE === undefined &&
  isVolatile(tmpdir) &&
  !isVolatile(dirname(work.dir))
    ? dirname(work.dir)
    : tmpdir;

/** VMs of which it has been reported. */
const reported = new Set<string>();

/**
 * Reports once that a reboot removes a VM without a snapshot.
 * @param line a command for this VM, if it is not that of the command line
 */
export function reportVolatile(
  hostdir: string,
  work: Pick<Workdir, "dir" | "inplace">,
  line: typeof commandLine = commandLine,
): void {
  if (reported.has(hostdir) || work.inplace || hasSnapshots(hostdir) || !isVolatile(dirname(work.dir)))
    return;
  reported.add(hostdir);
  log.info(
    `  a reboot empties ${dirname(work.dir)}; to keep the VM: ${line("backup")}, or ${line("move-work")}; to keep a new one in its own directory: --inplace`,
  );
}
