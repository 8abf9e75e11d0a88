import { mkdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { listDirectory, replaceSymlink } from "./files.ts";

/** Links from each VM's UUID to the HOSTDIR where it was changed last: a copy of a directory is noticed by them. */
const placesDirectory = (cache: string): string => join(cache, "vms");

/** Best effort: without it a copy goes unnoticed. */
export function notePlace(cache: string | undefined, uuid: string, hostdir: string): void {
  if (cache === undefined) return;
  try {
    mkdirSync(placesDirectory(cache), { recursive: true, mode: 0o700 });
    replaceSymlink(join(placesDirectory(cache), uuid), hostdir);
  } catch {
    // No room, or no rights there.
  }
}

/** HOSTDIR as it was noted for a VM, which may have moved since; undefined where nothing is. */
export function findRecordedPlace(cache: string | undefined, uuid: string): string | undefined {
  if (cache === undefined) return undefined;
  try {
    return readlinkSync(join(placesDirectory(cache), uuid));
  } catch {
    return undefined;
  }
}

/** HOSTDIRs of all VMs that were noted, each once; some may be gone or moved. */
export function listPlaces(cache: string | undefined): string[] {
  if (cache === undefined) return [];
  const uuids = listDirectory(placesDirectory(cache));
  return [...new Set(uuids.flatMap((uuid) => findRecordedPlace(cache, uuid) ?? []))];
}
