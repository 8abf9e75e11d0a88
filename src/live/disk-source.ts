import type { ReadImage } from "../machine/types.ts";
import type { Bitmap } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { TransactionAction } from "../qmp/commands.ts";
import type { QmpError } from "../qmp/errors.ts";
import type { Consistency } from "../store/mark-types.ts";

/** A working file that a snapshot holds. */
export interface Source {
  name: string;
  path: string;
  /** A disk; others are small. */
  disk: boolean;
  /** The backing file of a disk. */
  base: ReadImage | undefined;
}

/** A disk that a qemu has open. */
export interface OpenDisk {
  /** `disk-0.img` */
  name: string;
  /** Where the guest writes; bitmaps are here. */
  node: string;
  virtualBytes: number;
  bitmaps: Bitmap[];
}

/** One moment of all disks. */
export interface PointInTime {
  consistency: Consistency;
  /** From where a job reads the disk as it was then. */
  nodeOf(disk: OpenDisk): string;
  /** Makes a bitmap of a disk usable there. @returns its name */
  exposeBitmap(disk: OpenDisk, bitmap: string): Promise<string>;
  /** Why the actions were not done. */
  refused: QmpError | undefined;
}

/** Disks in a qemu: the running VM's, or one of our own that has nothing else. */
export interface DiskSource {
  qmp: QmpClient;
  disks: OpenDisk[];
  /**
   * Takes the moment.
   * @param actions done in qemu at that very time: the guest does nothing then
   */
  freeze(actions: readonly TransactionAction[]): Promise<PointInTime>;
  /** Puts everything back. May be called again. */
  close(): Promise<void>;
}
