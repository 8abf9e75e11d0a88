import type { AddedList, RawSettings } from "../config/schema.ts";
import type { Aio, DisplayAddress, ImageFormat } from "../machine/types.ts";

/**
 * Exit reason of the last run: the guest shut down (`powered-off`) or rebooted (`reset`), this program killed it
 * (`stopped`), it was suspended, another process or a host crash killed it (`killed`), the guest panicked or qemu failed
 * (`crashed`); `unknown` while it runs.
 */
export const RUN_ENDS = [
  "powered-off",
  "reset",
  "stopped",
  "suspended",
  "killed",
  "crashed",
  "unknown",
] as const;
export type RunEnd = (typeof RUN_ENDS)[number];

/**
 * Consistency of a copy of the disks. `offline`: the guest had shut down, or had never run. `agent`: it was running with
 * filesystems frozen by its agent. `crash-consistent`: as after a power cut.
 */
export const CONSISTENCIES = ["offline", "agent", "crash-consistent"] as const;
export type Consistency = (typeof CONSISTENCIES)[number];

/** Values that earlier versions wrote. */
const EARLIER: ReadonlyMap<unknown, Consistency> = new Map([
  ["clean", "offline"],
  ["unused", "offline"],
  ["crash", "crash-consistent"],
]);

export const parseConsistency = (word: unknown): Consistency | undefined =>
  CONSISTENCIES.find((one) => one === word) ?? EARLIER.get(word);

/** Consistency of the disks of a VM that is off. */
export function consistencyOf({ lastRun, restored }: Mark): Consistency {
  if (lastRun === undefined)
    return restored === undefined ? "offline" : (parseConsistency(restored) ?? "crash-consistent");
  return lastRun === "powered-off" || lastRun === "reset" ? "offline" : "crash-consistent";
}

export const INTERRUPTED_JOB = "a job was interrupted, or its rescue crashed";

/** Why the disks of a VM that is off are crash-consistent. */
export function explainCrash({ lastRun, unrecorded, interruptedJob }: Mark): string {
  if (interruptedJob) return INTERRUPTED_JOB;
  if (lastRun === "unknown") return "the exit reason of the last run is unknown";
  if (lastRun === "suspended")
    return "the VM is suspended: the snapshot has its disks as of then, not its RAM";
  if (lastRun !== undefined) return "the guest did not shut down in the last run";
  return unrecorded
    ? "the restored snapshot does not record whether the guest was off, and the VM has not been run since"
    : "the restored snapshot is crash-consistent, and the VM has not been run since";
}

/** The jail of a qemu: what it has, and why not more. */
export interface JailRecord {
  /** Namespaces, and a root with the VM's files only. */
  namespaces: boolean;
  /** A network namespace of its own, without any network. */
  network: boolean;
  noNewPrivileges: boolean;
  /** The kernel refuses writing to what is not its own; not in records of earlier versions. */
  landlock: boolean;
  /** The user that qemu runs as; null: not known. */
  uid: number | null;
  reasons: string[];
}

/** Without a jail. */
export const UNCONFINED: JailRecord = {
  namespaces: false,
  network: false,
  noNewPrivileges: false,
  landlock: false,
  uid: null,
  reasons: [],
};

/** The last start of the VM: what its qemu cannot report. */
export interface RunRecord {
  /** ISO time stamp. */
  started: string;
  /** Started with --detach: no process waits for its end. */
  detached: boolean;
  /** Pid of qemu, in records of earlier versions. */
  pid?: number;
  /** Settings of the running machine (`machineSettings`); absent in records of earlier versions. */
  settings?: RawSettings | undefined;
  /** The CD that it was started with; absent without one, and in records of earlier versions. */
  cd?: { first: boolean } | undefined;
  /** Its `hostfwd=` and `guestfwd=` rules. */
  forwards: string[];
  /** How the images are read and written, by the disks' numbers; absent in records of earlier versions. */
  diskAios?: Record<number, Aio> | undefined;
  /** The same of all images in WORKDIR, in records of earlier versions. */
  diskAio?: Aio | undefined;
  /** Absent in records of earlier versions. */
  jail?: JailRecord | undefined;
  /** The control group that its qemu was put into for its limits, or why it was not; absent without limits. */
  limits?: { group?: string; problem?: string } | undefined;
  /** SPICE or VNC; absent without either. */
  display?: ({ protocol: string } & DisplayAddress) | undefined;
  /** Options of this run; `restart` uses them again. */
  typed: {
    settings: RawSettings;
    additions: Partial<Record<AddedList, string[]>>;
    ssh: boolean;
  };
  /** ISO time stamp, once its end is recorded. */
  ended?: string | undefined;
  /** How it ended, in words; absent if the guest ended it, and in records of earlier versions. */
  how?: string | undefined;
}

/** The backing file of a disk, as it was when the disk was created. */
export interface BaseRecord {
  /** Absolute, symlinks resolved. */
  path: string;
  format: ImageFormat;
  bytes?: number;
  /** ISO time stamp; absent for a block device, where it is meaningless. */
  modified?: string;
  /** Of a block device: its number (stat(2), st_rdev). */
  device?: number;
}

/** A recorded snapshot: detects another one of the same name. */
export interface SnapshotRecord {
  name: string;
  /** Of its manifest. */
  id: string;
  /** Checksum of its content (`contentSum`). */
  sum: string;
}

/** The VM that this one was cloned from. */
export interface CloneRecord {
  /** Its HOSTDIR, symlinks resolved. */
  directory: string;
  uuid?: string | undefined;
  /** Name of the cloned snapshot; absent: its working disks. */
  snapshot?: string | undefined;
  /** Of a linked clone: the snapshot whose images are backing files of the disks. */
  base?: SnapshotRecord | undefined;
}

/** The snapshot in a repository that disks are being copied from. */
export interface ArrivingRecord {
  name: string;
  /** restic's id, in full. */
  id: string;
  /** Its own id, which stays when restic's changes. */
  snapshotId?: string | undefined;
}

/** `.vm.json` in WORKDIR. Its presence marks the directory as this program's. */
export interface Mark {
  /** Format of this file. */
  vm: 1;
  /** ISO time stamp. */
  created: string;
  /** Exit reason of the last run; absent before the first run. */
  lastRun?: RunEnd | undefined;
  /** Only jobs have used the disks since they were created: no guest has run. */
  onlyJobs?: true | undefined;
  /** A job that was interrupted is the last that has used the disks, or none of the later jobs has repaired them. */
  interruptedJob?: true | undefined;
  /** The last run. */
  run?: RunRecord | undefined;
  /** Pid of the program that runs a job, which has the VM's lock: no qemu may use the disks yet. */
  job?: number | undefined;
  /** The working files have had the state of a TPM. */
  tpm?: true | undefined;
  /** For restored disks that have not been run since: consistency of the snapshot. */
  restored?: Consistency | undefined;
  /** The restored snapshot does not record that (earlier program). */
  unrecorded?: true | undefined;
  /** The backing file of the first disk (`create --linked`). */
  base?: BaseRecord | undefined;
  /** The snapshot whose images are backing files of the disks, as it was when they were created. */
  onSnapshot?: SnapshotRecord | undefined;
  /** Disks are overlays on this snapshot's images in the repository, until all of them are copied. */
  arriving?: ArrivingRecord | undefined;
  /** The VM was cloned, and its working files have not been replaced since. */
  clone?: CloneRecord | undefined;
  /** At the last backup, `backups` was on another filesystem than HOSTDIR. */
  backupsApart?: boolean | undefined;
  /** Working files moved into place together (in-place restore). */
  files?: string[] | undefined;
  /** In place: names in HOSTDIR that belong to the program. Absent in older marks: all names that it uses. */
  owns?: string[] | undefined;
  /** The disks when the working files were created. */
  disks?: string[] | undefined;
  /** Directory of the working files that this one replaced, until it is removed. */
  replaces?: string | undefined;
  /** They are complete, and the symlink of the VM does not refer to them yet. */
  unlinked?: true | undefined;
  /** Directory that they are being moved to, until they are there. */
  movingTo?: string | undefined;
  /** The file is damaged; never written itself. */
  damaged?: true | undefined;
}

export const newMark = (): Mark => ({ vm: 1, created: new Date().toISOString() });
