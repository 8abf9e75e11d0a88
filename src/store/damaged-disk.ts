import { VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";

/** Reason for a missing disk. */
export const MISSING = "it is missing";

/** A damaged working disk is not backed up: rotation would replace intact snapshots with it. */
export const damagedDisk = (path: string, reason: string): VmError =>
  new VmError("io", `cannot back up ${path}: ${reason}`, {
    hint: `no snapshot was made; restore a good one${
      reason === MISSING
        ? ""
        : `, or check the disk: qemu-img check ${shellQuote(path)} (-r all repairs: try it on a copy)`
    }`,
  });
