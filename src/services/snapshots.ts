import { readlinkSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { formatTimestamp } from "../lib/time.ts";
import { listDirectory, lstatOf, readSmall } from "../store/files.ts";
import { HOST, LAST, SNAPSHOT } from "../store/layout.ts";
import { parseManifest, type Manifest } from "../store/manifest.ts";

export interface Snapshot {
  name: string;
  dir: string;
  /** From `TS`, else the directory's time. */
  made: Date;
  /** Absent in snapshots of the earlier program. */
  manifest: Manifest | undefined;
}

const NAME_HINT = "a name may not contain / or control characters, begin with . or -, or be LAST";

/** @throws 64 for a name that cannot be a snapshot's */
export function validateSnapshotName(name: string): void {
  if (/^[^/.\-\p{Cc}][^/\p{Cc}]*$/u.test(name) && name !== LAST && Buffer.byteLength(name) <= 200) return;
  throw new VmError("usage", `'${name}' cannot be a snapshot's name`, { hint: NAME_HINT });
}

const isSnapshotName = (name: string): boolean => !/^[.-]/.test(name) && name !== LAST;

/** All snapshots, oldest first. */
export function listSnapshots(hostdir: string): Snapshot[] {
  const backups = join(hostdir, HOST.backups);
  return listDirectory(backups)
    .filter((name) => isSnapshotName(name) && lstatOf(join(backups, name))?.isDirectory())
    .map((name) => readSnapshot(hostdir, name))
    .toSorted((a, b) => a.made.getTime() - b.made.getTime());
}

function readSnapshot(hostdir: string, name: string): Snapshot {
  const dir = join(hostdir, HOST.backups, name);
  const stamp = readSmall(join(dir, SNAPSHOT.timestamp))?.trim() ?? "";
  const made = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(stamp)
    ? new Date(stamp.replace(" ", "T"))
    : lstatOf(dir)!.mtime;
  const text = readSmall(join(dir, SNAPSHOT.manifest));
  return { name, dir, made, manifest: text === undefined ? undefined : parseManifest(text, dir) };
}

/**
 * The snapshot of this name, or the last one.
 * @throws 66 when there is none
 */
export function findSnapshot(hostdir: string, name: string | undefined): Snapshot {
  const wanted = name ?? lastName(hostdir);
  if (wanted !== undefined) {
    if (name !== LAST) validateSnapshotName(wanted);
    if (lstatOf(join(hostdir, HOST.backups, wanted))?.isDirectory()) return readSnapshot(hostdir, wanted);
  }
  const all = listSnapshots(hostdir);
  const newest = all.at(-1);
  // The very first backup may have been killed before it could set LAST.
  if (name === undefined && wanted === undefined && newest) return newest;
  const there = all.map((item) => `${item.name} (${formatTimestamp(item.made)})`).join(", ");
  throw new VmError(
    "noInput",
    wanted === undefined ? `the VM in ${hostdir} has no snapshots` : `no such snapshot: ${wanted}`,
    { hint: there ? `there are: ${there}` : "'backup' makes one; 'create' makes a new VM" },
  );
}

/** What LAST points at: a name beside it. */
function lastName(hostdir: string): string | undefined {
  const link = join(hostdir, HOST.backups, LAST);
  if (!lstatOf(link)?.isSymbolicLink()) return undefined;
  return readlinkSync(link).replace(/\/+$/, "").split("/").at(-1);
}

/** [compat] `S0`, `S1` …: numerically the next. */
export function nextSnapshotName(hostdir: string): string {
  const numbers = listDirectory(join(hostdir, HOST.backups)).flatMap((name) => {
    const match = /^S(\d{1,15})$/.exec(name);
    return match ? [Number(match[1])] : [];
  });
  return `S${Math.max(-1, ...numbers) + 1}`;
}
