import { VmError } from "../lib/errors.ts";

/**
 * The format of guest.env that this program writes, and the newest it reads. Files without a number are older, the
 * earlier program's among them, and are read for ever.
 */
export const GUEST_FORMAT = 1;

/** The assignment that tells it; a variable of no use to the earlier program. */
export const GUEST_FORMAT_NAME = "VM_FORMAT";

const ASSIGNMENT = new RegExp(`^[ \\t]*${GUEST_FORMAT_NAME}=["']?([^"'\\s]*)["']?[ \\t]*(#.*)?$`, "m");

/**
 * Looks for the number before anything else is understood: the rest may be in a form that is not known here.
 * @throws 78 when a newer version wrote the file
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
