import { closeSync, constants, fstatSync, openSync, read, readSync } from "node:fs";
import { hasErrno, reasonOf, usageError, VmError } from "../lib/errors.ts";
import { fileKindOf } from "../lib/read-file.ts";
import { STDIN } from "../lib/standard-streams.ts";
import { copyBytes } from "./copy-bytes.ts";
import { interruption, throwIfInterrupted } from "./signals.ts";
import { isTerminal } from "./terminal.ts";

/** A file or a pipe that is read from its start to its end: small pieces here, large ones by another program. */
export interface ByteSource extends Disposable {
  /** For messages. */
  readonly name: string;
  /** Length of a file; undefined for a pipe. */
  readonly length: number | undefined;
  /** Fewer bytes at the end. */
  read(bytes: number): Promise<Buffer>;
  /** Copies to a new file. The caller compares its length: at the end of the source it is shorter. */
  copyTo(fd: number, bytes: number, what: string, follow: (done: number) => void): Promise<void>;
  skip(bytes: number, what: string): Promise<void>;
}

const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/**
 * @param path undefined: stdin
 * @throws 64 if stdin is a terminal, 66 if there is no such file
 */
export function openBytes(path: string | undefined, usage: string): ByteSource {
  if (path === undefined) {
    if (isTerminal(STDIN)) throw usageError("stdin is a terminal", usage);
    return new PipeSource("stdin", STDIN);
  }
  let fd: number;
  try {
    fd = openSync(path, O_RDONLY | O_NONBLOCK);
  } catch (error) {
    throw new VmError("noInput", `cannot read ${path}: ${reasonOf(error)}`, { cause: error });
  }
  const stats = fstatSync(fd);
  if (stats.isFile()) return new FileSource(path, fd, stats.size);
  closeSync(fd);
  throw new VmError("noInput", `cannot read ${path}: it is ${fileKindOf(stats)}, not a regular file`, {
    hint: "give it as stdin, with - for the file",
  });
}

/** Reads exactly so many bytes. @throws the given error at the end of the source, or after a stop signal */
export async function readExactly(
  source: ByteSource,
  bytes: number,
  truncated: () => Error,
): Promise<Buffer> {
  const found = await source.read(bytes);
  throwIfInterrupted();
  if (found.length < bytes) throw truncated();
  return found;
}

class FileSource implements ByteSource {
  #at = 0;

  constructor(
    readonly name: string,
    readonly fd: number,
    readonly length: number,
  ) {}

  read(bytes: number): Promise<Buffer> {
    const buffer = Buffer.alloc(Math.min(bytes, Math.max(0, this.length - this.#at)));
    let done = 0;
    while (done < buffer.length) {
      const count = readSync(this.fd, buffer, done, buffer.length - done, this.#at + done);
      if (count === 0) break;
      done += count;
    }
    this.#at += done;
    return Promise.resolve(buffer.subarray(0, done));
  }

  async copyTo(to: number, bytes: number, what: string, follow: (done: number) => void): Promise<void> {
    // With a position of its own.
    const from = openSync(`/proc/self/fd/${this.fd}`, O_RDONLY);
    try {
      await copyBytes({ what, from, to, bytes, skip: this.#at, file: true }, follow);
    } finally {
      closeSync(from);
    }
    this.#at += bytes;
  }

  skip(bytes: number): Promise<void> {
    this.#at += bytes;
    return Promise.resolve();
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

class PipeSource implements ByteSource {
  readonly length = undefined;

  constructor(
    readonly name: string,
    readonly fd: number,
  ) {}

  async read(bytes: number): Promise<Buffer> {
    const buffer = Buffer.alloc(bytes);
    let done = 0;
    while (done < bytes) {
      const count = await this.#readSome(buffer, done);
      if (count === 0) break;
      done += count;
    }
    return buffer.subarray(0, done);
  }

  /** Waits for the writer in another thread, so that a signal can end it. */
  #readSome(buffer: Buffer, at: number): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const stop = (): void => reject(interruption.reason);
    interruption.addEventListener("abort", stop, { once: true });
    read(this.fd, buffer, at, buffer.length - at, null, (error, count) => {
      interruption.removeEventListener("abort", stop);
      if (error && !hasErrno(error, "EOF")) reject(error);
      else resolve(error ? 0 : count);
    });
    if (interruption.aborted) stop();
    return promise;
  }

  copyTo(to: number, bytes: number, what: string, follow: (done: number) => void): Promise<void> {
    return copyBytes({ what, from: this.fd, to, bytes, file: true }, follow);
  }

  async skip(bytes: number, what: string): Promise<void> {
    const to = openSync("/dev/null", O_WRONLY);
    try {
      await copyBytes({ what, from: this.fd, to, bytes });
    } finally {
      closeSync(to);
    }
  }

  [Symbol.dispose](): void {}
}
