/** Standard streams of this process, as bytes. */
import { fstatSync } from "node:fs";
import { STDIN, writeError } from "../lib/standard-streams.ts";
import { isatty } from "./libc.ts";

/** Sets stdin's terminal to raw mode until disposal: Ctrl-C is a byte, too. */
export function rawTerminal(): Disposable {
  process.stdin.setRawMode(true);
  return {
    [Symbol.dispose]: () => {
      try {
        process.stdin.setRawMode(false);
      } catch {
        // The terminal is gone.
      }
    },
  };
}

/** Major number of /dev/null and /dev/zero (null(4)), where services and scripts send what they do not need. */
const MEMORY_DEVICES = 1;

/** Is this descriptor a terminal? The C library, which takes long to load, is asked for other devices only. */
export function isTerminal(fd: number): boolean {
  const stats = fstatSync(fd);
  return stats.isCharacterDevice() && stats.rdev >> 8 !== MEMORY_DEVICES && isatty(fd);
}

/** Writes bytes to stderr, as fast as the reader accepts them. */
export async function writeErrorOutput(bytes: Uint8Array): Promise<void> {
  await writeError(bytes);
}

/**
 * Reads stdin until end of file; empty if it is a terminal or closed.
 * @param over aborts reading; its reason is thrown
 */
export async function readStdin(over: AbortSignal): Promise<Buffer> {
  if (isTerminal(STDIN)) return Buffer.alloc(0);
  const { stdin } = process;
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const pieces: Buffer[] = [];
  const stop = (): void => reject(over.reason);
  const end = (): void => resolve(Buffer.concat(pieces));
  if (over.aborted) stop();
  over.addEventListener("abort", stop, { once: true });
  stdin
    .on("data", (piece: Buffer) => pieces.push(piece))
    .on("end", end)
    .on("error", end);
  try {
    return await promise;
  } finally {
    over.removeEventListener("abort", stop);
    releaseStdin();
  }
}

/** Lets the program exit without end of file on stdin. */
export function releaseStdin(): void {
  process.stdin.removeAllListeners("data").pause();
  process.stdin.unref?.();
}
