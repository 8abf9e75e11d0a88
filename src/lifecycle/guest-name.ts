import { badOption } from "../config/complaint.ts";
import { MAX_OWN_NAME_BYTES, plain } from "../lib/text.ts";

/**
 * Requires a name that can be stored: one line, without control characters. One of a file is taken as it is.
 * @throws 64
 */
export function requireGuestName(name: string): void {
  if (plain(name) !== name || Buffer.byteLength(name) > MAX_OWN_NAME_BYTES)
    throw badOption(
      "GUESTNAME",
      plain(name),
      `printable text of at most ${MAX_OWN_NAME_BYTES} bytes in one line, without control characters`,
    );
}
