import type { ReadImage } from "../machine/types.ts";
import type { Bitmap } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { ArgsOf, TransactionAction } from "../qmp/commands.ts";
import type { QmpError } from "../qmp/errors.ts";
import type { Consistency } from "../store/mark-types.ts";
import type { CopyRequest } from "./block-jobs.ts";
import type { RunningMachine } from "./ram.ts";

/** A working file to copy into a snapshot. */
export interface Source {
  name: string;
  path: string;
  /** False: a small file, such as UEFI variables. */
  disk: boolean;
  /** The backing file of a disk. */
  base: ReadImage | undefined;
}

/** A disk that is open in a qemu. */
export interface OpenDisk {
  /** `disk-0.img` */
  name: string;
  /** Node that the guest writes to, and that has the bitmaps. */
  node: string;
  virtualBytes: number;
  bitmaps: Bitmap[];
  /** No guest writes to it: it needs no copy-before-write. */
  idle?: boolean;
}

/** One point in time of all disks. */
export interface PointInTime {
  consistency: Consistency;
  /** Node to read the disk from, as it was then. */
  nodeOf(disk: OpenDisk): string;
  /**
   * Selects the clusters that a job copies from that node.
   * @param only a bitmap of the disk, or `top` if `freeze` was called with `full`
   */
  select(disk: OpenDisk, only: CopyRequest["only"]): Promise<CopyRequest["only"]>;
  /** Error of the transaction, if it failed. */
  refused: QmpError | undefined;
}

/** Disks that are open in a qemu: the running VM's, or one without a guest. */
export interface DiskSource {
  qmp: QmpClient;
  disks: OpenDisk[];
  /** The machine whose state is saved at the point in time; absent: disks only. */
  machine?: RunningMachine | undefined;
  /** Opens an image in qemu. */
  addImage(node: ArgsOf<"blockdev-add">): Promise<void>;
  /**
   * Establishes the point in time.
   * @param actions transaction that qemu executes at that time, while the guest is paused
   * @param full all allocated clusters are going to be copied
   */
  freeze(actions: readonly TransactionAction[], full: boolean): Promise<PointInTime>;
  /** Finds out why a copy failed. @returns an error that says so, or the same one */
  explain(error: unknown): Promise<unknown>;
  /** Removes everything that was added to qemu. Idempotent. */
  close(): Promise<void>;
}
