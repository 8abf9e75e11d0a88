import { join } from "node:path";
import { readSmall } from "../lib/read-file.ts";
import { listDirectory, removeQuietly, replaceVolatile, syncDirectory } from "./files.ts";
import { namedDisks } from "./guest-env.ts";
import { HOST, isDiskName, PARTIAL } from "./layout.ts";
import { remove } from "./remove.ts";

/**
 * An own disk is created before guest.env names it, and removed after. Meanwhile a marker beside it says so: what a killed
 * command has left belongs to the VM only if guest.env names it.
 */
const markerOf = (dir: string, disk: string): string => join(dir, PARTIAL + disk);

export function beginDiskChange(dir: string, disk: string): void {
  replaceVolatile(markerOf(dir, disk), "");
  syncDirectory(dir);
}

export const endDiskChange = (dir: string, disk: string): void => removeQuietly(markerOf(dir, disk));

/** Removes disks that a killed command has created or was removing; their markers are left. Under the VM's lock. */
export function completeDiskChanges(hostdir: string, workdir: string): void {
  for (const marker of listDirectory(workdir)) {
    const disk = marker.startsWith(PARTIAL) ? marker.slice(PARTIAL.length) : "";
    if (!isDiskName(disk)) continue;
    const text = [workdir, hostdir].map((place) => readSmall(join(place, HOST.guestEnv))).find(Boolean);
    const named = text === undefined ? undefined : namedDisks(text);
    if (named && !named.includes(disk)) remove(join(workdir, disk));
  }
}
