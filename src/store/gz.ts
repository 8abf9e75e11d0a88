import { closeSync, fstatSync, readFileSync, readSync } from "node:fs";
import { availableParallelism } from "node:os";
import { VmError } from "../lib/errors.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { pipe } from "../process/libc.ts";
import { processFailure, requireProgram, start, type Child } from "../process/exec.ts";
import { interruption } from "../process/signals.ts";
import { openForReading } from "../lib/read-file.ts";
import { createFile, syncDescriptor } from "./files.ts";

/** One file to compress or unpack. */
export interface CopyJob {
  /** Short name for messages. */
  name: string;
  from: string;
  to: string;
  /** Bytes of `from` that are to be read. */
  bytes: number;
}

/** Tells how many bytes have been read so far, of all jobs together. */
export type OnProgress = (doneBytes: number) => void;

const PROGRESS_MS = 250;

/** Where a child reads in its input: exact, and no byte passes through us (proc(5), fdinfo). */
function readPosition(pid: number): number {
  try {
    return Number(/^pos:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/0`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** One copy at work: the process whose input position tells how far it is, and its end. */
interface Copy {
  reader: Child;
  all: Child[];
  done: Promise<void>;
}

/** A reader that is ahead of its time is stopped for this long. */
const RATE_MS = 20;

/** Keeps a reader to so many bytes a second, as nothing else that is everywhere can. */
function keepToRate({ reader }: Copy, bytesPerSecond: number): Disposable {
  const started = performance.now();
  const timer = setInterval(() => {
    const due = ((performance.now() - started) / 1000) * bytesPerSecond;
    reader.kill(readPosition(reader.pid) > due ? "SIGSTOP" : "SIGCONT");
  }, RATE_MS);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/**
 * Runs copies side by side, at most `limit` at once; the first failure or interruption ends them all.
 * @param rate bytes per second of them all; 0: as fast as may be
 */
async function runFileCopies(
  jobs: readonly CopyJob[],
  limit: number,
  begin: (job: CopyJob) => Copy,
  onProgress: OnProgress,
  rate = 0,
): Promise<void> {
  const waiting = jobs.toSorted((a, b) => b.bytes - a.bytes);
  const active = new Map<CopyJob, Copy>();
  let finished = 0;
  const timer = setInterval(() => {
    const running = [...active].reduce(
      (sum, [job, { reader }]) => sum + Math.min(readPosition(reader.pid), job.bytes),
      0,
    );
    onProgress(finished + running);
  }, PROGRESS_MS);
  let failure: unknown;
  const worker = async (): Promise<void> => {
    for (let job = waiting.shift(); job && !failure; job = waiting.shift()) {
      try {
        const copy = begin(job);
        active.set(job, copy);
        using _rate = rate > 0 ? keepToRate(copy, rate / Math.min(limit, jobs.length)) : undefined;
        await copy.done;
        active.delete(job);
        finished += job.bytes;
      } catch (error) {
        failure ??= error;
        for (const { all } of active.values()) for (const child of all) child.kill("SIGKILL");
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(limit, jobs.length) }, worker));
  } finally {
    clearInterval(timer);
  }
  if (interruption.aborted) throw interruption.reason;
  if (failure) throw failure;
  onProgress(finished);
}

export interface CompressOptions {
  /** 1 to 9. */
  level: number;
  /** Bytes per second that are read, of all files together; 0: as fast as may be. */
  rate?: number;
  /** Puts a program before those that do it. */
  wrap?: (argv: string[]) => string[];
}

/**
 * Compresses files with pigz, side by side. Each may use every core: the kernel shares them out, and the
 * largest does not end alone on its share.
 * @throws 73 when there is no room, 69 without pigz
 */
export async function compressFiles(
  jobs: readonly CopyJob[],
  { level, rate = 0, wrap = (argv) => argv }: CompressOptions,
  onProgress: OnProgress,
): Promise<void> {
  requireProgram("pigz");
  // Before the work of minutes: its checksums come last.
  for (const name of ["cat", "sha256sum"]) requireProgram(name, installHint(PACKAGES.coreutils));
  const cores = availableParallelism();
  const begin = (job: CopyJob): Copy => {
    const from = openForReading(job.from);
    const before = fstatSync(from, { bigint: true });
    const to = createFile(job.to);
    const [readEnd, writeEnd] = pipe();
    // Not pigz itself: its threads wait for each other for ever when reading fails (seen with 2.6).
    const reader = start(wrap(["cat"]), { stdin: from, stdout: writeEnd });
    const packer = start(wrap(["pigz", `-${level}`, "-p", String(cores), "-n", "-T", "-c"]), {
      stdin: readEnd,
      stdout: to,
    });
    closeSync(readEnd);
    closeSync(writeEnd);
    const done = (async () => {
      try {
        const [read, packed] = await Promise.all([reader.done, packer.done]);
        if (packed.status !== 0) throw processFailure(`cannot compress ${job.name}`, packed);
        if (read.status !== 0) throw processFailure(`cannot read ${job.from}`, read);
        await syncDescriptor(to);
        const after = fstatSync(from, { bigint: true });
        if (after.mtimeNs !== before.mtimeNs || after.size !== before.size)
          throw new VmError("io", `${job.from} was changed while it was copied`, {
            hint: "something writes to this disk: end it, and run the command again",
          });
      } finally {
        closeSync(from);
        closeSync(to);
      }
    })();
    return { reader, all: [reader, packer], done };
  };
  await runFileCopies(jobs, cores, begin, onProgress, rate);
}

/**
 * Unpacks gz files into new sparse files and syncs them.
 * @param wrap puts a program before those that do it
 * @throws 73 when there is no room, 74 when a file is damaged
 */
export async function unpackFiles(
  jobs: readonly CopyJob[],
  onProgress: OnProgress,
  wrap = (argv: string[]): string[] => argv,
): Promise<void> {
  requireProgram("pigz");
  requireProgram("dd", installHint(PACKAGES.coreutils));
  const begin = (job: CopyJob): Copy => {
    const from = openForReading(job.from);
    const to = createFile(job.to);
    const [readEnd, writeEnd] = pipe();
    const reader = start(wrap(["pigz", "-d", "-c"]), { stdin: from, stdout: writeEnd });
    // dd leaves holes where there are only zeroes, and syncs at the end (GNU coreutils).
    const writer = start(wrap(["dd", "bs=64K", "iflag=fullblock", "conv=sparse,fsync", "status=none"]), {
      stdin: readEnd,
      stdout: to,
    });
    for (const fd of [readEnd, writeEnd, from, to]) closeSync(fd);
    const done = (async () => {
      const [unpacked, written] = await Promise.all([reader.done, writer.done]);
      if (written.status !== 0) throw processFailure(`cannot write ${job.to}`, written);
      if (unpacked.status !== 0) throw processFailure(`${job.from} is damaged`, unpacked);
    })();
    return { reader, all: [reader, writer], done };
  };
  await runFileCopies(jobs, availableParallelism(), begin, onProgress);
}

/** The length gzip notes at a file's end, modulo 4 GiB (RFC 1952): a lower bound of what it unpacks to. */
export function gzipLengthHint(path: string): number {
  const fd = openForReading(path);
  try {
    const { size } = fstatSync(fd);
    const tail = Buffer.alloc(4);
    if (size < 18) return 0;
    readSync(fd, tail, 0, 4, size - 4);
    return tail.readUInt32LE();
  } finally {
    closeSync(fd);
  }
}
