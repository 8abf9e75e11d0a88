import { VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";

/** The reason for a disk that is not there. */
export const MISSING = "it is missing";

/** A working disk that is damaged is not backed up: rotation would let it take the place of good snapshots. */
export const damagedDisk = (path: string, reason: string): VmError =>
  new VmError("io", `cannot back up ${path}: ${reason}`, {
    hint: `no snapshot was made; restore a good one${
      reason === MISSING
        ? ""
        : `, or look at the disk: qemu-img check ${shellQuote(path)} (-r all repairs: try it on a copy)`
    }`,
  });
