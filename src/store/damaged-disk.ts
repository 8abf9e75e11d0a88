import { VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";

/** Reason for a missing disk. */
export const MISSING = "it is missing";

/** What disks are copied for. */
export type CopyPurpose = "back up" | "clone" | "export";

export const NOT_MADE: Readonly<Record<CopyPurpose, string>> = {
  "back up": "no snapshot was made",
  clone: "no clone was made",
  export: "nothing was exported",
};

/** A damaged working disk is not backed up: rotation would replace intact snapshots with it. */
export const damagedDisk = (path: string, reason: string, purpose: CopyPurpose = "back up"): VmError =>
  new VmError("io", `cannot ${purpose} ${path}: ${reason}`, {
    hint: `${NOT_MADE[purpose]}; restore a good one${
      reason === MISSING
        ? ""
        : `, or check the disk: qemu-img check ${shellQuote(path)} (-r all repairs: try it on a copy)`
    }`,
  });
