/**
 * The saved state of a suspended VM: the directory `.vm-suspended` in WORKDIR, with RAM and devices (qemu/ram-state.ts) and this
 * description. It is complete once it has its name. A resumed machine writes to its RAM file, so a state is used once:
 *
 *   saved in SUSPENDING   →  renamed to WORK.suspended  →  qemu ends
 *   qemu has loaded it    →  renamed to WORK.resumed    →  the guest is resumed  →  description and devices are removed
 *   the run ends          →  WORK.resumed is removed
 *
 * A command that is killed in between leaves what vm/recover-suspended.ts decides on.
 */
import { lstatSync, renameSync, statSync, type BigIntStats } from "node:fs";
import { isAbsolute, join, normalize } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { ownedByUs } from "../lib/trust.ts";
import { plain } from "../lib/text.ts";
import { STATE_FILES } from "../qemu/state-files.ts";
import { replaceFile, syncDirectory } from "./files.ts";
import { SUSPENDING, WORK } from "./layout.ts";
import { remove } from "./remove.ts";

const DESCRIPTION = "state.json";
/** The format that this version writes. */
const FORMAT = 1;

/** A disk, or another file that the guest writes to, as the suspended guest left it. */
export interface DiskIdentity {
  /** Relative to WORKDIR, or absolute. */
  path: string;
  bytes: number;
  /** Nanoseconds, in decimal; of a block device, whose time means nothing: its number. */
  modified: string;
}

export interface SuspendedState {
  format: typeof FORMAT;
  /** ISO time stamp. */
  since: string;
  /** Version of qemu, which alone is sure to read the state. */
  qemu: string;
  accel: "kvm" | "tcg";
  /** Checksum of the host's processor, on which a guest with KVM depends. */
  processor: string;
  /** The CD in the drive, absolute, and whether the machine was started with it as the first in boot order. */
  cd: { path: string | null; first: boolean };
  disks: DiskIdentity[];
  /** The guest was paused by a command, and stays paused. */
  paused?: true;
  /** The RAM is that of the snapshot that this linked clone's disks build on (mark, `clone.base`): no file of it is here. */
  mapped?: true;
  /** An unfinished backup has begun to change the bitmaps in the disks. */
  inBackup?: true;
  /** A qemu has been started that loads the state, and opens the disks for writing before the guest runs. */
  loading?: true;
}

const suspendedIn = (workdir: string): string => join(workdir, WORK.suspended);

/** Is there anything of a suspended VM, or of a command that was killed while it suspended or resumed one? */
export const hasSuspendedTraces = ({ dir }: { dir: string }): boolean =>
  [SUSPENDING, WORK.suspended, WORK.resumed].some((name) => lstatOf(join(dir, name)));

/**
 * Its description; undefined if the VM is not suspended. Nothing else than to resume the guest needs it.
 * @throws 74 if it cannot be used
 */
export function readSuspended(workdir: string): SuspendedState | undefined {
  const directory = suspendedIn(workdir);
  const stats = lstatOf(directory);
  if (!stats) return undefined;
  const path = join(directory, DESCRIPTION);
  const refuse = (reason: string): VmError =>
    new VmError("io", `cannot use the saved state in ${directory}: ${reason}`, {
      hint: `boot the VM, and lose its RAM, as after a power cut: ${commandLine("run", "--boot")}`,
    });
  if (!stats.isDirectory() || !ownedByUs(stats)) throw refuse("it is not a directory of this user");
  let parsed: unknown;
  try {
    parsed = JSON.parse(readSmall(path) ?? "");
  } catch {
    throw refuse(`${DESCRIPTION} is damaged`);
  }
  if (typeof parsed === "object" && parsed !== null && "format" in parsed && Number(parsed.format) > FORMAT)
    throw refuse("it was written by a newer version of this program");
  if (!isState(parsed)) throw refuse(`${DESCRIPTION} is damaged`);
  for (const name of parsed.mapped ? [STATE_FILES.devices] : Object.values(STATE_FILES)) {
    const file = lstatOf(join(directory, name));
    if (!file?.isFile() || !ownedByUs(file)) throw refuse(`${name} is not a regular file of this user`);
    // qemu would enlarge it.
    if (file.size === 0) throw refuse(`${name} is empty`);
  }
  return parsed;
}

const isText = (value: unknown): value is string =>
  typeof value === "string" && value.length <= 4096 && plain(value) === value;

const isPath = (value: unknown): boolean => isText(value) && isAbsolute(value) && normalize(value) === value;

function isState(value: unknown): value is SuspendedState {
  const { format, since, qemu, accel, processor, cd, disks, paused, mapped } = (value ?? {}) as Record<
    string,
    any
  >;
  return (
    format === FORMAT &&
    isText(since) &&
    !Number.isNaN(Date.parse(since)) &&
    isText(qemu) &&
    (accel === "kvm" || accel === "tcg") &&
    isText(processor) &&
    (cd?.path === null || isPath(cd?.path)) &&
    typeof cd.first === "boolean" &&
    Array.isArray(disks) &&
    disks.every(
      (disk) => isText(disk?.path) && Number.isSafeInteger(disk.bytes) && /^\d{1,30}$/.test(disk.modified),
    ) &&
    [paused, mapped].every((flag) => flag === undefined || flag === true)
  );
}

/** Writes the description of a state that is being saved, or another one of a saved state. */
export const writeDescription = (directory: string, state: SuspendedState): void =>
  replaceFile(join(directory, DESCRIPTION), `${JSON.stringify(state, null, 2)}\n`);

/** Has the VM a saved state that this version can read? */
export function hasUsableState(workdir: string): boolean {
  try {
    return readSuspended(workdir) !== undefined;
  } catch {
    return false;
  }
}

/** What tells whether a file has been changed. @param path relative to WORKDIR, or absolute */
export function identifyDisk(workdir: string, path: string): DiskIdentity {
  const place = isAbsolute(path) ? path : join(workdir, path);
  const stats = statSync(place, { bigint: true });
  if (stats.isBlockDevice()) return { path, bytes: 0, modified: String(stats.rdev) };
  return { path, bytes: Number(stats.size), modified: String(stats.mtimeNs) };
}

/** Why a disk is not as the suspended guest left it; undefined if it is. */
export function findDiskChange(workdir: string, disk: DiskIdentity): string | undefined {
  let now: DiskIdentity;
  try {
    now = identifyDisk(workdir, disk.path);
  } catch {
    return `${disk.path} is missing`;
  }
  return now.bytes === disk.bytes && now.modified === disk.modified ? undefined : `${disk.path} was changed`;
}

/** The same for all disks. */
export const findDiskChanges = (workdir: string, { disks, inBackup, loading }: SuspendedState): string[] =>
  inBackup || loading ? [] : disks.flatMap((disk) => findDiskChange(workdir, disk) ?? []);

/**
 * For a backup of a suspended VM, which changes bitmaps in its disks, but not what the guest reads: until the disposal, changes
 * do not count, and not if this program is killed.
 */
export function allowBackup(workdir: string): Disposable {
  const state = hasUsableState(workdir) ? readSuspended(workdir) : undefined;
  if (state === undefined || findDiskChanges(workdir, state).length > 0)
    return { [Symbol.dispose]: () => {} };
  writeDescription(suspendedIn(workdir), { ...state, inBackup: true });
  return { [Symbol.dispose]: () => acceptDisks(workdir) };
}

/** Before a qemu loads the state: what it changes in the disks until the guest runs is not read by the guest. */
export const beginLoading = (workdir: string, state: SuspendedState): void =>
  writeDescription(suspendedIn(workdir), { ...state, loading: true });

/** Has the disks count as unchanged after a backup, or after a qemu that has loaded the state and has not run. */
export function acceptDisks(workdir: string): void {
  const state = hasUsableState(workdir) ? readSuspended(workdir) : undefined;
  if (!state?.inBackup && !state?.loading) return;
  const { inBackup: _backup, loading: _loading, ...rest } = state;
  const disks = state.disks.map(({ path }) => identifyDisk(workdir, path));
  writeDescription(suspendedIn(workdir), { ...rest, disks });
}

/** Makes a complete directory the VM's saved state. From then on the VM is suspended. */
export function commitSuspended(workdir: string, directory: string): void {
  syncDirectory(directory);
  renameSync(directory, suspendedIn(workdir));
  syncDirectory(workdir);
}

/** Before the guest is resumed. */
export function beginResumed(workdir: string): void {
  renameSync(suspendedIn(workdir), join(workdir, WORK.resumed));
  syncDirectory(workdir);
}

/** Puts back a state whose guest has not been resumed. */
export const putBack = (workdir: string): void =>
  renameSync(join(workdir, WORK.resumed), suspendedIn(workdir));

/** Is it unrecorded whether the guest was resumed? */
export const isUndecided = (workdir: string): boolean =>
  lstatOf(join(workdir, WORK.resumed, DESCRIPTION)) !== undefined;

/** The guest runs: only its RAM is left. */
export function endResuming(workdir: string): void {
  remove(join(workdir, WORK.resumed, DESCRIPTION));
  remove(join(workdir, WORK.resumed, STATE_FILES.devices));
}

/** Discards the saved state: the guest's RAM is lost. */
export const discardSuspended = (workdir: string): void => remove(suspendedIn(workdir));

/** For errors. */
export const MAPPED_RAM =
  "until a restart, the guest's RAM is mapped from the snapshot that the VM was cloned from";

/** Has the running machine a private mapping of a snapshot's RAM, which nothing else can read? */
export const mapsSnapshot = (workdir: string): boolean =>
  lstatOf(join(workdir, WORK.resumed)) !== undefined &&
  lstatOf(join(workdir, WORK.resumed, STATE_FILES.ram)) === undefined;

/** The RAM file of a resumed machine, if the running machine's RAM is that file. @param ram of the machine */
export function findResumedRam(workdir: string, ram: BigIntStats): string | undefined {
  const path = join(workdir, WORK.resumed, STATE_FILES.ram);
  const stats = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return stats !== undefined && stats.ino === ram.ino && stats.dev === ram.dev ? path : undefined;
}
