import { readlinkSync } from "node:fs";
import { join } from "node:path";
import { refuseNewer } from "../config/guest-format.ts";
import { VmError } from "../lib/errors.ts";
import { formatTimestamp } from "../lib/time.ts";
import { fileError, listDirectories, listDirectory, lstatOf, readSmall } from "../store/files.ts";
import { HOST, LAST, SNAPSHOT } from "../store/layout.ts";
import { parseManifest, type Manifest } from "../store/manifest.ts";
import { byAge } from "../store/retention.ts";

export interface Snapshot {
  name: string;
  dir: string;
  /** From `TS`, else the directory's time. */
  made: Date;
  /** Absent in snapshots of the earlier program. */
  manifest: Manifest | undefined;
  /** Why it cannot be restored, where that shows at once. */
  problem?: VmError;
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
  return listDirectories(backups)
    .filter(isSnapshotName)
    .map((name) => readSnapshot(hostdir, name))
    .toSorted(byAge);
}

function readSnapshot(hostdir: string, name: string): Snapshot {
  const dir = join(hostdir, HOST.backups, name);
  let problem: VmError | undefined;
  try {
    const text = readSmall(join(dir, SNAPSHOT.manifest));
    const manifest = text === undefined ? undefined : parseManifest(text, dir);
    // Told before its disks take the place of others: the restored VM could not be used.
    const guestEnv = join(dir, HOST.guestEnv);
    refuseNewer(readSmall(guestEnv) ?? "", guestEnv);
    // To the millisecond, where TS has whole seconds.
    const exactly = new Date(manifest?.made ?? NaN);
    return { name, dir, made: Number.isNaN(exactly.getTime()) ? readStamp(dir) : exactly, manifest };
  } catch (error) {
    // One damaged snapshot must not keep anybody from making or using others.
    if (!(error instanceof VmError) && !(error instanceof Error && "errno" in error)) throw error;
    problem = fileError(`the snapshot ${dir} is damaged`, error);
  }
  return { name, dir, made: readStamp(dir), manifest: undefined, problem };
}

/** The time in `TS`, else the directory's. */
function readStamp(dir: string): Date {
  let stamp = "";
  try {
    stamp = readSmall(join(dir, SNAPSHOT.timestamp))?.trim() ?? "";
  } catch {
    // No file, or not ours to read.
  }
  const noted = new Date(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(stamp) ? stamp.replace(" ", "T") : NaN);
  return Number.isNaN(noted.getTime()) ? (lstatOf(dir)?.mtime ?? new Date(0)) : noted;
}

/**
 * The snapshot of this name, or the last one.
 * @throws 66 when there is none
 */
export function findSnapshot(hostdir: string, name: string | undefined): Snapshot {
  const wanted = name === undefined || name === LAST ? lastName(hostdir) : name;
  if (wanted !== undefined) {
    validateSnapshotName(wanted);
    if (lstatOf(join(hostdir, HOST.backups, wanted))?.isDirectory()) return readSnapshot(hostdir, wanted);
  }
  const all = listSnapshots(hostdir);
  const newest = all.at(-1);
  // The very first backup may have been killed before it could set LAST.
  if (wanted === undefined && newest) return newest;
  const there = all.map((item) => `${item.name} (${formatTimestamp(item.made)})`).join(", ");
  throw new VmError(
    "noInput",
    wanted === undefined ? `the VM in ${hostdir} has no snapshots` : `no such snapshot: ${wanted}`,
    { hint: there ? `there are: ${there}` : "'backup' makes one; 'create' makes a new VM" },
  );
}

/** What LAST points at: a name beside it. */
export function lastName(hostdir: string): string | undefined {
  const link = join(hostdir, HOST.backups, LAST);
  if (!lstatOf(link)?.isSymbolicLink()) return undefined;
  return readlinkSync(link).replace(/\/+$/, "").split("/").at(-1);
}

/** [compat] `S0`, `S1` …: numerically the next. */
export function nextSnapshotName(hostdir: string): string {
  const numbers = listDirectory(join(hostdir, HOST.backups)).flatMap((name) => {
    const match = /^S(\d+)$/.exec(name);
    return match ? [BigInt(match[1]!)] : [];
  });
  return `S${numbers.reduce((most, number) => (number > most ? number : most), -1n) + 1n}`;
}
