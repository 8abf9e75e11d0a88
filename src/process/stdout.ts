/** Standard output: results, and the output of guests and jobs. */
import { fstatSync, readFileSync } from "node:fs";
import { reasonOf, VmError } from "../lib/errors.ts";
import { STDOUT, writeTo } from "../lib/standard-streams.ts";
import { isCloseOnExec } from "./open-flags.ts";

/**
 * Was stdout closed when this program was started? Bun opens /dev/null instead, with close-on-exec (proc_pid_fdinfo(5)),
 * which an inherited descriptor cannot have.
 */
let closed: boolean | undefined;
function wasClosed(): boolean {
  if (!fstatSync(STDOUT).isCharacterDevice()) return false;
  return isCloseOnExec(readFileSync(`/proc/self/fdinfo/${STDOUT}`, "utf8"));
}

/** @throws VmError 74 if writing fails, except for a closed pipe */
function write(data: string | Uint8Array): boolean | Promise<boolean> {
  if ((closed ??= wasClosed())) throw new VmError("io", "cannot write the result: stdout is closed");
  try {
    return writeTo(STDOUT, data);
  } catch (error) {
    throw new VmError("io", `cannot write the result: ${reasonOf(error)}`, { cause: error });
  }
}

/**
 * Writes a result. A closed pipe (`| head`) is not an error; a slow reader gets everything before the program exits.
 * @throws VmError 74 if writing fails
 */
export const writeResult = (result: string | Uint8Array): void => void write(result);

/**
 * Writes a piece of bulk output, as fast as the reader accepts it.
 * @returns false if the pipe is closed
 * @throws VmError 74 as `writeResult`
 */
export async function writeOutput(piece: string | Uint8Array): Promise<boolean> {
  return piece.length === 0 || write(piece);
}
