/** Our standard output: results, and what guests and jobs print. */
import { fstatSync, readFileSync, writeSync } from "node:fs";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import { O_CLOEXEC } from "./open-flags.ts";

const STDOUT = 1;
/** How long a terminal that takes nothing at the moment (EAGAIN) is left alone. */
const PAUSE_MS = 5;

/** May a write fail for another reason than a reader that has gone? Pipes and sockets cannot be full for good. */
let storesData: boolean | undefined;
function isFileOrDevice(): boolean {
  if (storesData === undefined) {
    const stats = fstatSync(STDOUT);
    if (stats.isCharacterDevice() && wasClosed())
      throw new VmError("io", "cannot write the result: stdout is closed");
    storesData = stats.isFile() || stats.isCharacterDevice() || stats.isBlockDevice();
  }
  return storesData;
}

/**
 * Was stdout closed when we were started? Bun opens /dev/null in its place, close-on-exec (proc_pid_fdinfo(5)), which
 * nothing inherited can be.
 */
function wasClosed(): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${STDOUT}`, "utf8"))?.[1];
  return (Number.parseInt(flags ?? "0", 8) & O_CLOEXEC) !== 0;
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
