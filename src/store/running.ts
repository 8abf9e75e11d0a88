import { mkdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { listDirectory, removeQuietly, replaceSymlink } from "./files.ts";
import { sha256 } from "../lib/crypto.ts";

/** Links to the directories of VMs that run, so that they can be found wherever they are. */
const runningDirectory = (cache: string): string => join(cache, "running");

const linkTo = (cache: string, hostdir: string): string =>
  join(runningDirectory(cache), sha256(hostdir).slice(0, 16));

/** Best effort: without it a VM outside of PROFILES is not listed. */
export function noteRunning(cache: string | undefined, hostdir: string): void {
  if (cache === undefined) return;
  try {
    mkdirSync(runningDirectory(cache), { recursive: true, mode: 0o700 });
    replaceSymlink(linkTo(cache, hostdir), hostdir);
  } catch {
    // No room, or no rights there.
  }
}

export function forgetRunning(cache: string | undefined, hostdir: string): void {
  if (cache !== undefined) removeQuietly(linkTo(cache, hostdir));
}

/** HOSTDIRs that were noted, running or not. */
export function listNoted(cache: string | undefined): string[] {
  if (cache === undefined) return [];
  const directory = runningDirectory(cache);
  return listDirectory(directory).flatMap((name) => {
    try {
      return [readlinkSync(join(directory, name))];
    } catch {
      return [];
    }
  });
}
