import { mkdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { listDirectory, replaceSymlink } from "./files.ts";

/** Symlinks from each VM's UUID to the HOSTDIR where it was last changed, to detect copied directories. */
const placesDirectory = (cache: string): string => join(cache, "vms");

/** Best effort: without it a copy is not detected. */
export function notePlace(cache: string | undefined, uuid: string, hostdir: string): void {
  if (cache === undefined || findRecordedPlace(cache, uuid) === hostdir) return;
  try {
    mkdirSync(placesDirectory(cache), { recursive: true, mode: 0o700 });
    replaceSymlink(join(placesDirectory(cache), uuid), hostdir);
  } catch {
    // No space or no permission.
  }
}

/** The recorded HOSTDIR of a VM, which may have moved since; undefined if there is none. */
export function findRecordedPlace(cache: string | undefined, uuid: string): string | undefined {
  if (cache === undefined) return undefined;
  try {
    return readlinkSync(join(placesDirectory(cache), uuid));
  } catch {
    return undefined;
  }
}

/** Recorded HOSTDIRs of all VMs, each once; some may have been removed or moved. */
export function listPlaces(cache: string | undefined): string[] {
  if (cache === undefined) return [];
  const uuids = listDirectory(placesDirectory(cache));
  return [...new Set(uuids.flatMap((uuid) => findRecordedPlace(cache, uuid) ?? []))];
}
