/** Our standard output: results, and what guests and jobs print. */
import { fstatSync, readFileSync } from "node:fs";
import { reasonOf, VmError } from "../lib/errors.ts";
import { STDOUT, writeTo } from "../lib/standard-streams.ts";
import { O_CLOEXEC } from "./open-flags.ts";

/**
 * Was stdout closed when we were started? Bun opens /dev/null in its place, close-on-exec (proc_pid_fdinfo(5)), which
 * nothing inherited can be.
 */
let closed: boolean | undefined;
function wasClosed(): boolean {
  if (!fstatSync(STDOUT).isCharacterDevice()) return false;
  const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${STDOUT}`, "utf8"))?.[1];
  return (Number.parseInt(flags ?? "0", 8) & O_CLOEXEC) !== 0;
}

/** @throws VmError 74 when stdout is a file or device that cannot take it */
function write(data: string | Uint8Array): boolean | Promise<boolean> {
  if ((closed ??= wasClosed())) throw new VmError("io", "cannot write the result: stdout is closed");
  try {
    return writeTo(STDOUT, data);
  } catch (error) {
    throw new VmError("io", `cannot write the result: ${reasonOf(error)}`, { cause: error });
  }
}

/**
 * Writes a result. A reader that goes away (`| head`) is no error; a slow one gets everything before the program ends.
 * @throws VmError 74 when stdout is a file or device that cannot take it
 */
export const writeResult = (result: string | Uint8Array): void => void write(result);

/**
 * Writes a piece of much output, as fast as the reader takes it.
 * @returns false when nothing reads any more
 * @throws VmError 74 as `writeResult`
 */
export async function writeOutput(piece: string | Uint8Array): Promise<boolean> {
  return piece.length === 0 || write(piece);
}
