import { VmError } from "../lib/errors.ts";

/**
 * The format of guest.env that this program writes, and the newest it reads. Files without a number are older, also
 * from the earlier program, and must stay readable.
 */
export const GUEST_FORMAT = 1;

/** The variable with the number, which the earlier program ignores. */
export const GUEST_FORMAT_NAME = "VM_FORMAT";

const ASSIGNMENT = new RegExp(`^[ \\t]*${GUEST_FORMAT_NAME}=["']?([^"'\\s]*)["']?[ \\t]*(#.*)?$`, "m");

/**
 * Checks the number before parsing: the rest may be in an unknown format.
 * @throws 78 if a newer version wrote the file
 */
export function refuseNewer(text: string, file: string): void {
  const format = ASSIGNMENT.exec(text)?.[1] ?? "";
  if (format === "" || (/^\d+$/.test(format) && Number(format) <= GUEST_FORMAT)) return;
  throw new VmError(
    "config",
    `${file} was written by a newer version of this program (format ${format}, and this one knows ${GUEST_FORMAT})`,
    { hint: "use that version", reason: "newer" },
  );
}
