/** Our own standard streams, by bytes. */
import { fstatSync } from "node:fs";
import { STDIN, writeError } from "../lib/standard-streams.ts";
import { isatty } from "./libc.ts";

/** The terminal passes each key on as it is, Ctrl-C too; undone on disposal. */
export function rawTerminal(): Disposable {
  process.stdin.setRawMode(true);
  return { [Symbol.dispose]: () => void process.stdin.setRawMode(false) };
}

/** Is this descriptor a terminal? */
export const isTerminal = (fd: number): boolean => fstatSync(fd).isCharacterDevice() && isatty(fd);

/** Writes bytes on stderr, as fast as the reader takes them. */
export async function writeErrorOutput(bytes: Uint8Array): Promise<void> {
  await writeError(bytes);
}

/**
 * Everything on stdin up to its end; nothing where it is a terminal or closed.
 * @param over ends the reading with its reason
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

/** Lets the program end though stdin may never do. */
export function releaseStdin(): void {
  process.stdin.removeAllListeners("data").pause();
  process.stdin.unref?.();
}
