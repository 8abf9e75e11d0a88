/**
 * Our standard output and error, written by their descriptors: process.stdout and process.stderr take longer to set up
 * than most commands to run. They stand in where a write would have to wait for a slow reader.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { hasErrno } from "./errors.ts";

export const STDIN = 0;
export const STDOUT = 1;
export const STDERR = 2;

type Output = typeof STDOUT | typeof STDERR;

/** Pipes, opened once more: O_NONBLOCK on the descriptor that we were given would be its other users', too. */
const pipes = new Map<Output, number>();

function pipeOf(fd: Output): number | undefined {
  try {
    const known = pipes.get(fd);
    if (known !== undefined) return known;
    const opened = openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
    pipes.set(fd, opened);
    return opened;
  } catch {
    // No reader any more, another user's pipe, or no /proc.
    return undefined;
  }
}

/** Where a write does not wait for a reader; undefined for a socket. */
function descriptorOf(fd: Output): number | undefined {
  const stats = fstatSync(fd);
  if (stats.isFIFO()) return pipeOf(fd);
  return stats.isSocket() ? undefined : fd;
}

/** How many writes a stream has not done yet: what comes later has to queue behind them. */
const queued = { [STDOUT]: 0, [STDERR]: 0 };
const streams = new Map<Output, NodeJS.WriteStream>();

function writeByStream(fd: Output, bytes: Uint8Array): Promise<boolean> {
  let stream = streams.get(fd);
  if (!stream) {
    stream = fd === STDOUT ? process.stdout : process.stderr;
    // Without a listener an error would end the program.
    stream.on("error", () => {});
    streams.set(fd, stream);
  }
  queued[fd]++;
  return new Promise((resolve) => {
    stream.write(bytes, (error) => {
      queued[fd]--;
      resolve(!error);
    });
  });
}

/**
 * Writes to standard output or error: at once, or as fast as a slow reader takes it.
 * @returns false when nothing reads any more; a promise while the reader is slow
 * @throws a system error when a file or device cannot take it
 */
export function writeTo(fd: Output, data: string | Uint8Array): boolean | Promise<boolean> {
  const bytes = typeof data === "string" ? Buffer.from(data) : data;
  const target = queued[fd] > 0 ? undefined : descriptorOf(fd);
  if (target === undefined) return writeByStream(fd, bytes);
  let at = 0;
  // A device that takes nothing refuses an empty result, too.
  do {
    try {
      at += writeSync(target, bytes, at);
    } catch (error) {
      if (hasErrno(error, "EPIPE")) return false;
      if (hasErrno(error, "EAGAIN")) return writeByStream(fd, bytes.subarray(at));
      if (!hasErrno(error, "EINTR")) throw error;
    }
  } while (at < bytes.length);
  return true;
}

/** Writes to standard error. Errors are ignored: a lost terminal must not stop a change halfway. */
export function writeError(data: string | Uint8Array): boolean | Promise<boolean> {
  try {
    return writeTo(STDERR, data);
  } catch {
    return false;
  }
}

/** Of the terminal that is stdout; the usual one where it is not known. */
export function terminalSize(): { columns: number; rows: number } {
  const [columns = 80, rows = 24] = process.stdout.getWindowSize?.() ?? [];
  return { columns: columns || 80, rows: rows || 24 };
}
