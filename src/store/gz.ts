import { closeSync, fstatSync, readSync } from "node:fs";
import { availableParallelism } from "node:os";
import { VmError } from "../lib/errors.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { readPosition } from "../process/copy-bytes.ts";
import { pipe } from "../process/libc.ts";
import { processFailure, requireProgram, start, type Child } from "../process/exec.ts";
import { interruption } from "../process/signals.ts";
import { createFile, syncDescriptor } from "./files.ts";
import { openForReading } from "../lib/read-file.ts";

/** One file to compress or decompress. */
export interface CopyJob {
  /** Short name for messages. */
  name: string;
  from: string;
  to: string;
  /** Bytes of `from` to read. */
  bytes: number;
}

/** Receives the number of bytes read so far, over all jobs. */
export type OnProgress = (doneBytes: number) => void;

const PROGRESS_MS = 250;

/** A copy in progress: the process whose input position is the progress, and its end. */
interface Copy {
  reader: Child;
  all: Child[];
  done: Promise<void>;
}

/** How long a reader that is above the rate limit is stopped. */
const RATE_MS = 20;

/** Limits the rate of a reader by stopping it, which needs no other program. */
function keepToRate({ reader }: Copy, bytesPerSecond: number): Disposable {
  const started = performance.now();
  const timer = setInterval(() => {
    const due = ((performance.now() - started) / 1000) * bytesPerSecond;
    reader.kill(readPosition(reader.pid) > due ? "SIGSTOP" : "SIGCONT");
  }, RATE_MS);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/**
 * Runs copies in parallel, at most `limit` at once; the first failure or interruption ends all.
 * @param rate bytes per second in total; 0: unlimited
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
  // The position of a reader that has ended is not known.
  let shown = 0;
  const timer = setInterval(() => {
    const running = [...active].reduce(
      (sum, [job, { reader }]) => sum + Math.min(readPosition(reader.pid), job.bytes),
      0,
    );
    shown = Math.max(shown, finished + running);
    onProgress(shown);
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
  /** Bytes read per second in total; 0: unlimited. */
  rate?: number;
  /** Low priority (process/exec.ts). */
  low?: boolean;
}

/**
 * Compresses files with pigz in parallel. Each may use every core: so the largest one can use all of them when the
 * others are done.
 * @throws 73 if there is no space, 69 without pigz
 */
export async function compressFiles(
  jobs: readonly CopyJob[],
  { level, rate = 0, low = false }: CompressOptions,
  onProgress: OnProgress,
): Promise<void> {
  requireProgram("pigz");
  // Before minutes of work: checksums are computed at the end.
  for (const name of ["cat", "sha256sum"]) requireProgram(name, installHint(PACKAGES.coreutils));
  const cores = availableParallelism();
  const begin = (job: CopyJob): Copy => {
    const from = openForReading(job.from);
    const before = fstatSync(from, { bigint: true });
    const to = createFile(job.to);
    const [readEnd, writeEnd] = pipe();
    const packer = start(["pigz", `-${level}`, "-p", String(cores), "-n", "-T", "-c"], {
      stdin: readEnd,
      stdout: to,
      low,
    });
    // pigz does not read the file itself: its threads deadlock on a read error (seen with 2.6).
    const reader = start(["cat"], { stdin: from, stdout: writeEnd, low });
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
          throw new VmError("io", `cannot compress ${job.from}: it changed while it was read`, {
            hint: "stop what writes to this disk, and run the command again",
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
 * Decompresses gz files into new sparse files and syncs them.
 * @param low with low priority
 * @throws 73 if there is no space, 74 if a file is damaged
 */
export async function unpackFiles(
  jobs: readonly CopyJob[],
  onProgress: OnProgress,
  low = false,
): Promise<void> {
  requireProgram("pigz");
  requireProgram("dd", installHint(PACKAGES.coreutils));
  const begin = (job: CopyJob): Copy => {
    const from = openForReading(job.from);
    const to = createFile(job.to);
    const [readEnd, writeEnd] = pipe();
    const reader = start(["pigz", "-d", "-c"], { stdin: from, stdout: writeEnd, low });
    // dd makes zeroes holes, and syncs at the end (GNU coreutils: conv=sparse,fsync).
    const writer = start(["dd", "bs=64K", "iflag=fullblock", "conv=sparse,fsync", "status=none"], {
      stdin: readEnd,
      stdout: to,
      low,
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

/** The length at the end of a gzip file, modulo 4 GiB (RFC 1952): a lower bound of its decompressed size. */
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
