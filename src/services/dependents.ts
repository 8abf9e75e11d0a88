import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { HOST, WORK } from "../store/layout.ts";
import type { Work } from "../store/workdir.ts";
import { ownDisks } from "./in-use.ts";
import type { Snapshot } from "./snapshots.ts";

/** What needs a snapshot, for people: `S1`, `the working disk disk-0.img`. */
export function dependentsOf(name: string, all: readonly Snapshot[], work: Work): string[] {
  const children = all.filter(({ manifest }) => manifest?.parent === name).map((item) => item.name);
  return [...children, ...disksOn(name, work)];
}

/** Working disks that are changes to a snapshot's, and say so as `.host/backups/NAME/…`. */
function disksOn(name: string, work: Work): string[] {
  if (work.state !== "present") return [];
  const begin = `${WORK.hostLink}/${HOST.backups}/${name}/`;
  return ownDisks(work.dir)
    .filter((disk) => readBackingName(join(work.dir, disk))?.startsWith(begin))
    .map((disk) => `the working disk ${disk}`);
}

/** The backing file that a qcow2 image names (docs/interop/qcow2.txt); undefined where it stands alone. */
export function readBackingName(path: string): string | undefined {
  const fd = openSync(path, "r");
  try {
    const header = Buffer.alloc(20);
    readSync(fd, header, 0, header.length, 0);
    if (header.toString("latin1", 0, 4) !== "QFI\xfb") return undefined;
    const offset = Number(header.readBigUInt64BE(8));
    const length = header.readUInt32BE(16);
    if (offset === 0 || length > 1023) return undefined;
    const name = Buffer.alloc(length);
    readSync(fd, name, 0, length, offset);
    return name.toString();
  } finally {
    closeSync(fd);
  }
}
