/** Our standard output: results, and what guests and jobs print. */
import { fstatSync, writeSync } from "node:fs";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";

const STDOUT = 1;
/** How long a terminal that takes nothing at the moment (EAGAIN) is left alone. */
const PAUSE_MS = 5;

/** May a write fail for another reason than a reader that has gone? Pipes and sockets cannot be full for good. */
let storesData: boolean | undefined;
function isFileOrDevice(): boolean {
  if (storesData === undefined) {
    const stats = fstatSync(STDOUT);
    storesData = stats.isFile() || stats.isCharacterDevice() || stats.isBlockDevice();
  }
  return storesData;
}

/** @throws VmError 74 where there is no room, or the device fails */
function writeAllNow(bytes: Uint8Array): void {
  let at = 0;
  // A device that takes nothing refuses an empty result, too.
  do {
    try {
      at += writeSync(STDOUT, bytes, at);
    } catch (error) {
      if (hasErrno(error, "EAGAIN")) Bun.sleepSync(PAUSE_MS);
      else if (!hasErrno(error, "EINTR"))
        throw new VmError("io", `cannot write the result: ${reasonOf(error)}`, { cause: error });
    }
  } while (at < bytes.length);
}

/**
 * Writes a result. A reader that goes away (`| head`) is no error; a slow one gets everything before the program ends.
 * @throws VmError 74 when stdout is a file or device that cannot take it
 */
export function writeResult(result: string | Uint8Array): void {
  if (isFileOrDevice()) writeAllNow(typeof result === "string" ? Buffer.from(result) : result);
  else process.stdout.write(result);
}

/**
 * Writes a piece of much output, as fast as the reader takes it.
 * @returns false when nothing reads any more
 * @throws VmError 74 as `writeResult`
 */
export async function writeOutput(piece: string | Uint8Array): Promise<boolean> {
  if (piece.length === 0) return true;
  if (!isFileOrDevice())
    return new Promise((resolve) => process.stdout.write(piece, (error) => resolve(!error)));
  writeResult(piece);
  return true;
}
