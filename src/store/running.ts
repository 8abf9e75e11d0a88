import { createHash } from "node:crypto";
import { mkdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { listDirectory, removeQuietly, swingLink } from "./files.ts";

/** Symlinks to the directories of running VMs, so that `list` finds them anywhere. */
const directoryIn = (cache: string): string => join(cache, "running");

const linkTo = (cache: string, hostdir: string): string =>
  join(directoryIn(cache), createHash("sha256").update(hostdir).digest("hex").slice(0, 16));

/** Best effort: without it a VM outside PROFILES is not listed. */
export function noteRunning(cache: string | undefined, hostdir: string): void {
  if (cache === undefined) return;
  try {
    mkdirSync(directoryIn(cache), { recursive: true, mode: 0o700 });
    swingLink(linkTo(cache, hostdir), hostdir);
  } catch {
    // No space or no permission.
  }
}

export function forgetRunning(cache: string | undefined, hostdir: string): void {
  if (cache !== undefined) removeQuietly(linkTo(cache, hostdir));
}

/** Recorded HOSTDIRs, of VMs running or not. */
export function listNoted(cache: string | undefined): string[] {
  if (cache === undefined) return [];
  const directory = directoryIn(cache);
  return listDirectory(directory).flatMap((name) => {
    try {
      return [readlinkSync(join(directory, name))];
    } catch {
      return [];
    }
  });
}
