import { mkdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { listDirectory, swingLink } from "./files.ts";

/** Links from each VM's UUID to the HOSTDIR where it was changed last: a copy of a directory is noticed by them. */
const directoryIn = (cache: string): string => join(cache, "vms");

/** Best effort: without it a copy goes unnoticed. */
export function notePlace(cache: string | undefined, uuid: string, hostdir: string): void {
  if (cache === undefined) return;
  try {
    mkdirSync(directoryIn(cache), { recursive: true, mode: 0o700 });
    swingLink(join(directoryIn(cache), uuid), hostdir);
  } catch {
    // No room, or no rights there.
  }
}

/** HOSTDIR as it was noted for a VM, which may have moved since; undefined where nothing is. */
export function placeOf(cache: string | undefined, uuid: string): string | undefined {
  if (cache === undefined) return undefined;
  try {
    return readlinkSync(join(directoryIn(cache), uuid));
  } catch {
    return undefined;
  }
}

/** HOSTDIRs of all VMs that were noted, each once; some may be gone or moved. */
export function listPlaces(cache: string | undefined): string[] {
  if (cache === undefined) return [];
  const uuids = listDirectory(directoryIn(cache));
  return [...new Set(uuids.flatMap((uuid) => placeOf(cache, uuid) ?? []))];
}
