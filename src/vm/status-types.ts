/** What `status --json` and `list --json` print. */
import type { RawSettings } from "../config/schema.ts";
import type { Aio, Arch, DiskBus, DisplayAddress } from "../machine/types.ts";
import type { JailRecord, RunEnd } from "../store/mark-types.ts";
import type { LimitStatus } from "./confine.ts";
import type { MachineDisk } from "./disks.ts";
import type { Manager } from "./autostart.ts";
import type { UnitState } from "./autostart-state.ts";
import type { ListedNic } from "./nics.ts";
import type { Reach } from "./reach-settings.ts";
import type { NextRunChange } from "./running-settings.ts";

/** States of VMs as `list` shows them: those of `state`, and what is shown in their place. */
export const STATES = [
  "running",
  "paused",
  "suspended",
  "stopped",
  "created",
  "crashed",
  "broken",
  "job",
  "panicked",
  "template",
] as const;

export interface AutostartStatus {
  manager: Manager;
  unit: string | null;
  order: number;
  delaySeconds: number;
  wait: "ssh" | "agent" | null;
  restart: boolean;
  /** Of `status` only, with systemd. */
  state?: UnitState | null;
  watched?: boolean;
}

/** `broken`: cannot be read, see `error`. */
export type VmState = "running" | "paused" | "suspended" | "stopped" | "created" | "crashed" | "broken";

/** Status of one VM, as printed by `status --json`, and for each item by `list --json`. */
export interface Status {
  /** GUESTNAME, else the directory's name. */
  name: string;
  /** HOSTDIR. */
  directory: string;
  state: VmState;
  /** Reason for `broken`, or another error (if snapshots cannot be listed, `snapshots` is absent). */
  error?: string;
  /** Hint for the error. */
  hint?: string;
  /** Setting LABELS. */
  labels?: string[];
  arch?: Arch;
  /** Of all sockets. */
  cores?: number;
  memoryMiB?: number;
  uefi?: boolean;
  /** Settings SECURE_BOOT and TPM; null without a TPM. */
  secureBoot?: boolean;
  tpm?: string | null;
  /** Of UEFI: is a platform key enrolled in its variables? Null: not known. */
  platformKey?: boolean | null;
  /** Of UEFI. Null: not known, as with a platform key but without SECURE_BOOT, where it depends on the firmware. */
  secureBootEnforced?: boolean | null;
  /** Of a running VM: its swtpm has exited, and the guest's TPM does not answer. */
  tpmExited?: true;
  /**
   * The VM's own disks: virtual size, and allocated bytes on the host. `attached`: of a running VM, if its machine has it.
   * Number and bus are null for one that the settings do not name.
   */
  disks?: {
    file: string;
    number: number | null;
    bus: DiskBus | null;
    virtualBytes: number | null;
    actualBytes: number;
    /** Limits; absent: none. */
    iops?: number;
    bytesPerSecond?: number;
    attached?: boolean;
    aio?: Aio;
  }[];
  /** Its other disks: images of the settings, and those of this run only. */
  images?: (MachineDisk & { aio?: Aio })[];
  /** The CD in the drive; of a VM that is off, as named in the settings, that of the next run. Null: none. */
  cd?: string | null;
  /** Of a running VM: how its images are read and written, if all are in the same way; `aio`: how each is. */
  diskAio?: Aio;
  snapshots?: { count: number; last: string | null };
  /** Another directory with a VM of the same UUID: one of them is a copy. */
  sameAs?: string;
  /** Setting TEMPLATE: the VM can only be cloned. */
  template?: boolean;
  /**
   * The VM that it was cloned from, unless the working files have been replaced since. `movedFrom`, of a linked clone: its
   * recorded directory, which the next command that changes the clone replaces.
   */
  clonedFrom?: {
    directory: string;
    uuid: string | null;
    snapshot: string | null;
    linked: boolean;
    movedFrom?: string;
  };
  /** Disks of which a part is only in the repository, and the snapshot there; `mounted`: it can be read. */
  arriving?: {
    snapshot: string;
    id: string;
    disks: string[];
    mounted: boolean;
    /** `away`: it cannot be read now, and is tried again; `gone`: no process reads it. */
    repository: "serves" | "away" | "gone";
    /** Why it is away. */
    reason?: string;
    /** How much is here; absent if that is not known. */
    percent?: number;
    /** The directory of the disks, if copying has stopped because that is full. */
    full?: string;
  };
  /** Linked clones of its snapshots; `missing`: not found in its directory. */
  clones?: { directory: string; uuid: string; snapshot: string; missing: boolean }[];
  /** The guest.env that is read. */
  settingsFile?: string;
  /** HOSTDIR's guest.env, changed after the one that is read. */
  unreadSettings?: string;
  /** Access outside its directory. */
  reaches?: Reach[];
  /** Network cards. */
  nics?: ListedNic[];
  /** Of a running VM: settings that differ from those of the running machine, as the next `run` will use them. */
  nextRun?: RawSettings;
  /** The same, element by element. */
  nextRunChanges?: NextRunChange[];
  forwards?: string[];
  display?: ({ protocol: string } & DisplayAddress) | null;
  /** A job's rescue is running, not the guest. */
  job?: boolean;
  pid?: number | null;
  /** Of a running VM: what confines its qemu, and why not more. */
  jail?: JailRecord;
  /** Of a running VM with limits (CPU_QUOTA, MEMORY_MAX, IO_WEIGHT, SLICE): those in force. */
  limits?: LimitStatus;
  /** ISO time stamp of the last run's start. */
  started?: string | null;
  uptimeSeconds?: number | null;
  /** End of the last run; null if there was none. `how`: in words, unless the guest ended it. */
  lastEnd?: { end: RunEnd; at: string | null; how?: string } | null;
  workingFiles?: { directory: string; inplace: boolean; actualBytes: number } | null;
  /** The working files are missing: since when, and what `run` does. */
  gone?: string;
  /** Started with the host; null: it is not. `watched`, of a running VM: this run was started by its unit. */
  autostart?: AutostartStatus | null;
  /** The running guest's kernel has panicked. */
  panicked?: true;
  /** Errors inside the running machine. */
  guestErrors?: string[];
  /** Of a suspended VM: ISO time stamp, and what its RAM occupies on the host. */
  suspended?: { since: string; ramBytes: number };
}
