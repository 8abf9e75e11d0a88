import { mkdirSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { refuseNewer } from "../config/guest-format.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { didYouMean } from "../lib/nearest.ts";
import { isOwnName, MAX_OWN_NAME_BYTES } from "../lib/text.ts";
import { formatTimestamp } from "../lib/time.ts";
import { foreignReason, ownedByUs } from "../lib/trust.ts";
import { moveAside, shellQuote } from "../lib/shell.ts";
import { lstatOf, readSmall, realPath } from "../lib/read-file.ts";
import { fileError, listDirectories, listDirectory } from "./files.ts";
import { HOST, isDiskName, LAST, SNAPSHOT } from "./layout.ts";
import { parseManifest, type Manifest } from "./manifest.ts";
import { resolveWork } from "./workdir.ts";
import { byAge } from "./retention.ts";
import { hintForWork, requireVm } from "./no-vm.ts";

export interface Snapshot {
  name: string;
  dir: string;
  /** From `TS`, or else the modification time of the directory. */
  made: Date;
  /** Absent in snapshots of the earlier program. */
  manifest: Manifest | undefined;
  /** Why it cannot be restored, as far as a quick check finds. */
  problem?: VmError;
}

const NAME_HINT =
  "use a name without / and control characters that does not start with . or -, and is not LAST";

export const isSnapshotName = (name: string): boolean => isOwnName(name) && name !== LAST;

/** @throws 64 for an invalid snapshot name */
export function validateSnapshotName(name: string): void {
  if (isSnapshotName(name)) return;
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_OWN_NAME_BYTES)
    throw new VmError("usage", `a snapshot's name of ${bytes} bytes is too long: '${name.slice(0, 40)}…'`, {
      hint: `use at most ${MAX_OWN_NAME_BYTES} bytes, and a description: ${commandLine("backup", "NAME", "DESCRIPTION")}`,
    });
  throw new VmError("usage", `'${name}' cannot be a snapshot's name`, { hint: NAME_HINT });
}

/** The same for the name of one that is there, or LAST. */
export function validateSnapshotReference(name: string): void {
  if (name !== LAST) validateSnapshotName(name);
}

/** A directory that other programs have named may be one, too. */
const isListed = (name: string): boolean => !/^[.-]/.test(name) && name !== LAST;

/**
 * The directory `backups` of a VM, which may be a symlink to another filesystem.
 * @returns undefined if there is none
 * @throws 74 if it is a dangling symlink (not mounted), not a directory, or a symlink in a foreign VM
 */
export function findBackups(hostdir: string): string | undefined {
  const backups = join(hostdir, HOST.backups);
  const stats = lstatOf(backups);
  if (!stats) return undefined;
  const wrong = (reason: string, hint: string): VmError =>
    new VmError("io", `cannot use the snapshots in ${hostdir}: ${HOST.backups} ${reason}`, { hint });
  if (stats.isDirectory()) return backups;
  if (!stats.isSymbolicLink()) throw wrong("is no directory", moveAside(backups));
  const target = readlinkSync(backups);
  const own = lstatOf(hostdir);
  if (!ownedByUs(stats) || (own && foreignReason(own) !== undefined))
    throw wrong(
      `is a symbolic link to ${target}, which is not followed in a foreign directory`,
      "use that directory instead",
    );
  if (realPath(backups) === undefined)
    throw wrong(
      `is a symbolic link to ${target}, which does not exist`,
      `mount the filesystem that contains it: findmnt --fstab --target ${shellQuote(target)}`,
    );
  if (!statSync(backups).isDirectory())
    throw wrong(`is a symbolic link to ${target}, which is no directory`, "point it at a directory");
  return backups;
}

/** The same, created if there is none. @throws as `findBackups`, or a system error */
export function makeBackups(hostdir: string): string {
  const backups = findBackups(hostdir);
  if (backups !== undefined) return backups;
  const path = join(hostdir, HOST.backups);
  mkdirSync(path, { mode: 0o700 });
  return path;
}

/** Files of a snapshot of either program; a directory without any of them is no snapshot (such as `lost+found`). */
const SNAPSHOT_FILES: readonly string[] = [
  HOST.guestEnv,
  SNAPSHOT.manifest,
  SNAPSHOT.sums,
  SNAPSHOT.timestamp,
];
const isSnapshotFile = (file: string): boolean =>
  SNAPSHOT_FILES.includes(file) || isDiskName(file.replace(/\.img\.gz$|\.qcow2$/, ".img"));

/** mkfs creates it, accessible to root only, in each ext filesystem. */
const LOST_AND_FOUND = "lost+found";

/** Does a directory in `backups` look like a snapshot? An unreadable one counts as a damaged snapshot. */
function looksLikeSnapshot(dir: string, name: string): boolean {
  try {
    return listDirectory(dir).some(isSnapshotFile);
  } catch {
    return name !== LOST_AND_FOUND;
  }
}

/**
 * Names of the snapshots of a VM, unsorted.
 * @throws as `findBackups`, 74 if the directory cannot be read, or its filesystem is not mounted
 */
export function listSnapshotNames(hostdir: string): string[] {
  const backups = findBackups(hostdir);
  if (backups === undefined) return [];
  let names: string[];
  try {
    names = listDirectories(backups).filter(
      (name) => isListed(name) && looksLikeSnapshot(join(backups, name), name),
    );
  } catch (error) {
    throw fileError(`cannot list the snapshots in ${backups}`, error);
  }
  if (names.length === 0) requireMounted(hostdir, backups);
  return names;
}

/** Is `backups` on another filesystem than HOSTDIR? */
export const isApart = (hostdir: string): boolean =>
  statSync(join(hostdir, HOST.backups), { throwIfNoEntry: false })?.dev !== statSync(hostdir).dev;

/** An empty directory is an unmounted mount point if the last backup was on another filesystem. @throws 74 */
function requireMounted(hostdir: string, backups: string): void {
  let apart: boolean | undefined;
  try {
    const work = resolveWork(hostdir);
    apart = work.state === "present" && work.mark.backupsApart;
  } catch {
    // Errors in the working files are reported where these are used.
  }
  if (apart !== true || isApart(hostdir)) return;
  throw new VmError(
    "io",
    `cannot use the snapshots in ${hostdir}: ${HOST.backups} is empty, and the last backup was on another filesystem`,
    {
      hint: `mount it: mount ${shellQuote(realPath(backups) ?? backups)}; to start over in another place, remove ${join(hostdir, HOST.backups)}`,
    },
  );
}

/** All snapshots, oldest first. @throws as `listSnapshotNames` */
export const listSnapshots = (hostdir: string): Snapshot[] =>
  listSnapshotNames(hostdir)
    .map((name) => readSnapshot(hostdir, name))
    .toSorted(byAge);

/** Why a snapshot of this name cannot be created, or undefined. @throws as `findBackups` */
export function nameTaken(hostdir: string, name: string): VmError | undefined {
  const backups = findBackups(hostdir);
  if (backups === undefined || !lstatOf(join(backups, name))) return undefined;
  const hint = `choose another name, or none for the next free one: ${commandLine("backup")}`;
  if (listSnapshotNames(hostdir).includes(name))
    return new VmError("cannotCreate", `the snapshot ${name} exists already`, { hint });
  return new VmError(
    "cannotCreate",
    `cannot create the snapshot ${name}: ${join(backups, name)} exists already, and is no snapshot`,
    { hint },
  );
}

function readSnapshot(hostdir: string, name: string): Snapshot {
  const dir = join(hostdir, HOST.backups, name);
  let problem: VmError | undefined;
  try {
    listDirectory(dir);
    const text = readSmall(join(dir, SNAPSHOT.manifest));
    const manifest = text === undefined ? undefined : parseManifest(text, dir);
    // Checked before its disks replace others: the restored VM could not be used.
    const guestEnv = join(dir, HOST.guestEnv);
    refuseNewer(readSmall(guestEnv) ?? "", guestEnv);
    // In milliseconds; TS has whole seconds.
    const exactly = new Date(manifest?.made ?? NaN);
    return { name, dir, made: Number.isNaN(exactly.getTime()) ? readStamp(dir) : exactly, manifest };
  } catch (error) {
    // A damaged snapshot must not prevent the use of others.
    if (!(error instanceof VmError) && !(error instanceof Error && "errno" in error)) throw error;
    problem = fileError(`the snapshot ${dir} is damaged`, error);
  }
  return { name, dir, made: readStamp(dir), manifest: undefined, problem };
}

/** A description; empty without permission, or if it is not a regular file: the snapshot can still be restored. */
export function readDescription(dir: string): string {
  try {
    return (readSmall(join(dir, SNAPSHOT.description)) ?? "").trim();
  } catch {
    return "";
  }
}

/** The time in `TS`, or else that of the directory. */
function readStamp(dir: string): Date {
  let stamp = "";
  try {
    stamp = readSmall(join(dir, SNAPSHOT.timestamp))?.trim() ?? "";
  } catch {
    // No such file, or no permission.
  }
  const noted = new Date(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(stamp) ? stamp.replace(" ", "T") : NaN);
  return Number.isNaN(noted.getTime()) ? (lstatOf(dir)?.mtime ?? new Date(0)) : noted;
}

/**
 * The snapshot of this name, or the last one.
 * @throws 66 if there is none
 */
export function findSnapshot(hostdir: string, name: string | undefined): Snapshot {
  const byLast = name === undefined || name === LAST;
  const wanted = byLast ? lastName(hostdir) : name;
  if (!byLast) validateSnapshotName(name);
  if (wanted !== undefined && isListed(wanted)) {
    const backups = findBackups(hostdir);
    const dir = backups === undefined ? undefined : join(backups, wanted);
    if (dir !== undefined && lstatOf(dir)?.isDirectory() && looksLikeSnapshot(dir, wanted))
      return readSnapshot(hostdir, wanted);
  }
  const all = listSnapshots(hostdir);
  const newest = all.at(-1);
  // The first backup may have been killed before it could set LAST.
  if (wanted === undefined && newest) return newest;
  if (all.length === 0) requireVm(hostdir);
  const there = all.map((item) => `${item.name} (${formatTimestamp(item.made)})`).join(", ");
  if (byLast && wanted !== undefined) {
    const hint = newest
      ? `restore ${shellQuote(newest.name)} (the next backup replaces the symlink); there are: ${there}`
      : "run 'backup' for a new snapshot, which replaces the symlink, or 'create' for a new VM";
    throw new VmError(
      "noInput",
      `cannot find the last snapshot: backups/LAST refers to ${wanted}, which does not exist`,
      {
        hint,
      },
    );
  }
  const similar = didYouMean(
    wanted ?? "",
    all.map((item) => item.name),
  );
  throw new VmError(
    "noInput",
    wanted === undefined ? `the VM in ${hostdir} has no snapshots` : `no such snapshot: ${wanted}`,
    {
      hint: there
        ? `${similar}there are: ${there}`
        : lstatOf(join(hostdir, HOST.workLink))
          ? `make one: ${commandLine("backup")}`
          : hintForWork(hostdir),
    },
  );
}

/** The target of LAST: a name in the same directory. @throws as `findBackups` */
export function lastName(hostdir: string): string | undefined {
  const backups = findBackups(hostdir);
  const link = join(backups ?? "", LAST);
  if (backups === undefined || !lstatOf(link)?.isSymbolicLink()) return undefined;
  return readlinkSync(link).replace(/\/+$/, "").split("/").at(-1);
}

/** [compat] `S0`, `S1` …: numerically the next. */
export function nextSnapshotName(hostdir: string): string {
  const backups = findBackups(hostdir);
  const numbers = (backups === undefined ? [] : listDirectory(backups)).flatMap((name) => {
    const match = /^S(\d+)$/.exec(name);
    return match ? [BigInt(match[1]!)] : [];
  });
  return `S${numbers.reduce((most, number) => (number > most ? number : most), -1n) + 1n}`;
}
