import type { RawSettings } from "../config/schema.ts";
import type { DisplayAddress, ImageFormat } from "../machine/types.ts";

/**
 * How the guest's last run ended: by itself (`powered-off`, `reset`), ended by this program (`stopped`), by another or
 * with the host (`killed`), by a panic or a failure of qemu (`crashed`); `unknown` while it runs.
 */
export const RUN_ENDS = ["powered-off", "reset", "stopped", "killed", "crashed", "unknown"] as const;
export type RunEnd = (typeof RUN_ENDS)[number];

/**
 * What a copy of the disks is worth: the guest was off and had powered itself off, or had never run (`offline`); it
 * ran, and its agent had its file systems at rest (`agent`); or they are as after a power cut.
 */
export const CONSISTENCIES = ["offline", "agent", "crash-consistent"] as const;
export type Consistency = (typeof CONSISTENCIES)[number];

/** What earlier versions of this program wrote. */
const EARLIER: ReadonlyMap<unknown, Consistency> = new Map([
  ["clean", "offline"],
  ["unused", "offline"],
  ["crash", "crash-consistent"],
]);

export const parseConsistency = (word: unknown): Consistency | undefined =>
  CONSISTENCIES.find((one) => one === word) ?? EARLIER.get(word);

/** That of the disks of a VM that is off. */
export function consistencyOf({ lastRun, restored }: Mark): Consistency {
  if (lastRun === undefined)
    return restored === undefined ? "offline" : (parseConsistency(restored) ?? "crash-consistent");
  return lastRun === "powered-off" || lastRun === "reset" ? "offline" : "crash-consistent";
}

/** Why a copy of these disks, of a VM that is off, is crash-consistent. */
export function explainCrash({ lastRun, unrecorded }: Mark): string {
  if (lastRun === "unknown") return "it is not known how the last run ended";
  if (lastRun !== undefined) return "the guest did not power itself off last time";
  return unrecorded
    ? "the restored snapshot does not record whether the guest was off, and the VM has not run since"
    : "the restored snapshot is crash-consistent, and the VM has not run since";
}

/** How the VM was started last: what cannot be asked of its qemu. */
export interface RunRecord {
  /** ISO time stamp. */
  started: string;
  /** Started with --detach: no command waits for its end. */
  detached: boolean;
  /** Of its qemu, in records of earlier versions. */
  pid?: number;
  /** `hostfwd=` and `guestfwd=` rules of the first card. */
  forwards: string[];
  /** SPICE or VNC; absent without either. */
  display?: ({ protocol: string } & DisplayAddress) | undefined;
  /** What was typed for this run; a restart says it again. */
  typed: {
    settings: RawSettings;
    additions: Partial<Record<"FORWARDS" | "IMAGES" | "SHARES", string[]>>;
    ssh: boolean;
  };
  /** ISO time stamp, once its end has been written down. */
  ended?: string | undefined;
}

/** The backing file of a disk, as it was when the disk was made. */
export interface BaseRecord {
  /** Absolute, without links. */
  path: string;
  format: ImageFormat;
  bytes?: number;
  /** ISO time stamp; absent for a block device, of which it tells nothing. */
  modified?: string;
  /** Of a block device: its number (stat(2), st_rdev). */
  device?: number;
}

/** A snapshot as it was noted: another one under its name is noticed. */
export interface SnapshotRecord {
  name: string;
  /** Of its manifest. */
  id: string;
  /** Over its content (`contentSum`). */
  sum: string;
}

/** What `.vm.json` in WORKDIR says. Its presence is the program's mark. */
export interface Mark {
  /** Format of this file. */
  vm: 1;
  /** ISO time stamp. */
  created: string;
  /** The last run's end; absent before the first run. */
  lastRun?: RunEnd | undefined;
  /** The last run. */
  run?: RunRecord | undefined;
  /** For restored files that have not run since: how consistent the snapshot was. */
  restored?: Consistency | undefined;
  /** The restored snapshot does not record that: the earlier program's do not. */
  unrecorded?: true | undefined;
  /** The backing file of the first disk (`create --linked`). */
  base?: BaseRecord | undefined;
  /** The snapshot whose images are backing files of the disks, as it was when they were made. */
  onSnapshot?: SnapshotRecord | undefined;
  /** At the last backup, `backups` was on another file system than HOSTDIR. */
  backupsApart?: boolean | undefined;
  /** Working files of these names were put in place together (in-place restore). */
  files?: string[] | undefined;
  /** In place: names in HOSTDIR that are the program's. Absent in marks of earlier versions: all that it uses. */
  owns?: string[] | undefined;
  /** The disks that there were at first. */
  disks?: string[] | undefined;
  /** A directory of earlier working files that this one took the place of, until it is removed. */
  replaces?: string | undefined;
  /** The file could not be read as it was written; never written itself. */
  damaged?: true | undefined;
}

export const newMark = (): Mark => ({ vm: 1, created: new Date().toISOString() });
