import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { watchDirectory } from "../process/watch-directory.ts";
import { lstatOf } from "../lib/read-file.ts";
import { replaceVolatile } from "../store/files.ts";
import { remove } from "../store/remove.ts";
import { JOB } from "../store/layout.ts";

const CHUNK_BYTES = 1 << 16;
const LOOK_MS = 250;

/** What has appeared in `.out`. */
export interface Seen {
  started(): void;
  finished(): void;
}

/**
 * Opens a file that the rescue has written, if it is a regular file: a job could also create symlinks, devices and
 * pipes.
 */
function openOutput(path: string): number | undefined {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  let fd: number;
  try {
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    return undefined;
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  return undefined;
}

/** Exit status of a job as written to `.out`; undefined if there is none. */
export function readJobStatus(out: string): number | undefined {
  const fd = openOutput(join(out, JOB.status));
  if (fd === undefined) return undefined;
  try {
    const bytes = Buffer.alloc(16);
    const text = bytes.toString("latin1", 0, readSync(fd, bytes, 0, bytes.length, 0));
    const match = /^(\d{1,3})\n?$/.exec(text);
    return match && Number(match[1]) <= 255 ? Number(match[1]) : undefined;
  } finally {
    closeSync(fd);
  }
}

/**
 * What a rescue says of its job: by its channel, which is sooner, or else by the files of `.out`, as a rescue CD does. Of one
 * that says by its channel that the job has started, files count no more: the job can write them, too.
 */
export class ToldStatus {
  readonly #complete = Promise.withResolvers<void>();
  /** The job has ended, all disks are written, and nothing is mounted. */
  readonly complete = this.#complete.promise;
  #tells = false;
  #status: number | undefined;

  constructor(private readonly out: string) {}

  get isComplete(): boolean {
    return this.#status !== undefined;
  }

  get started(): boolean {
    return this.#tells || lstatOf(join(this.out, JOB.started)) !== undefined;
  }

  /** Exit status of the job; undefined if there is none. */
  get status(): number | undefined {
    return this.#tells ? this.#status : readJobStatus(this.out);
  }

  readonly hear = (line: string): void => {
    if (this.isComplete) return;
    if (line === "started") {
      this.#tells = true;
      this.#write(JOB.started, now());
    }
    const status = Number(/^status (\d{1,3})$/.exec(line)?.[1]);
    if (!this.#tells || !(status <= 255)) return;
    this.#status = status;
    this.#write(JOB.status, String(status));
    this.#write(JOB.finished, now());
    this.#complete.resolve();
  };

  /** For hooks, in place of what the job may have left there. Best effort. */
  #write(name: string, text: string): void {
    const path = join(this.out, name);
    try {
      remove(path);
      replaceVolatile(path, `${text}\n`);
    } catch {
      // The job has made something else of its share.
    }
  }
}

/** `2026-11-30 12:00:00` */
const now = (): string => new Date().toISOString().slice(0, 19).replace("T", " ");

/** Follows a job: passes its log in `.out` on as it grows, and reports its start and end. */
export class OutputWatch implements Disposable {
  readonly #out: string;
  readonly #watch: Disposable;
  #log: number | undefined;
  #offset = 0;
  #reported = { started: false, finished: false };
  #working: Promise<void> | undefined;
  #again = false;

  /** @param write receives a piece of the log; the next one follows when it has resolved */
  constructor(
    out: string,
    private readonly told: Pick<ToldStatus, "started" | "status">,
    private readonly seen: Seen,
    private readonly write: (piece: Uint8Array) => Promise<void>,
  ) {
    this.#out = out;
    this.#watch = watchDirectory(out, { everyMs: LOOK_MS }, () => this.#look());
  }

  /** Passes on the rest, once the rescue is off. */
  async drain(): Promise<void> {
    this.#look();
    while (this.#working) await this.#working;
  }

  #look(): void {
    this.#again = true;
    this.#working ??= this.#work().finally(() => (this.#working = undefined));
  }

  async #work(): Promise<void> {
    while (this.#again) {
      this.#again = false;
      if (!this.#reported.started && this.told.started) {
        this.#reported.started = true;
        this.seen.started();
      }
      await this.#handOn();
      if (!this.#reported.finished && this.told.status !== undefined) {
        this.#reported.finished = true;
        this.seen.finished();
      }
    }
  }

  async #handOn(): Promise<void> {
    this.#log ??= openOutput(join(this.#out, JOB.log));
    if (this.#log === undefined) return;
    for (;;) {
      const piece = Buffer.alloc(CHUNK_BYTES);
      const length = readSync(this.#log, piece, 0, piece.length, this.#offset);
      if (length === 0) return;
      this.#offset += length;
      await this.write(piece.subarray(0, length));
    }
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    if (this.#log !== undefined) closeSync(this.#log);
  }
}
