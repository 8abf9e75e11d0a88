import { readFileSync } from "node:fs";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { processFailure, requireProgram, start } from "./exec.ts";
import { throwIfInterrupted } from "./signals.ts";

/** A piece of a file or stream, which a program of its own copies. */
export interface BytesJob {
  /** For the error message: `cannot write disk-0.qcow2`. */
  what: string;
  from: number;
  to: number;
  bytes: number;
  /** Bytes of `from` to skip, from its present position; for a file, by lseek(2). */
  skip?: number;
  /** Make holes of zeroes: for a new file, which the caller syncs if it must last. */
  file?: boolean;
}

const PROGRESS_MS = 250;

/** Before anything begins. @throws 69 without dd */
export const requireCopier = (): void => void requireProgram("dd", installHint(PACKAGES.coreutils));

/** A child's position in its input or output: exact, without copying the data through this process (proc(5), fdinfo). */
export function readPosition(pid: number, fd: 0 | 1 = 0): number {
  try {
    return Number(/^pos:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/**
 * Copies exactly so many bytes, or to the end of the source.
 * @param follow receives how many bytes are done; of a pipe, only its other end tells
 * @throws 73 if there is no space, 74 if reading or writing fails
 */
export async function copyBytes(job: BytesJob, follow?: (done: number) => void): Promise<void> {
  const { what, from, to, bytes, skip = 0, file = false } = job;
  if (bytes === 0 && !file) return;
  const flags = ["fullblock", "count_bytes", ...(skip > 0 ? ["skip_bytes"] : [])].join(",");
  const argv = ["dd", `bs=${file ? "64K" : "256K"}`, `iflag=${flags}`, `count=${bytes}`, "status=none"];
  if (skip > 0) argv.push(`skip=${skip}`);
  if (file) argv.push("conv=sparse");
  const child = start(argv, { stdin: from, stdout: to });
  const watched = file ? 1 : 0;
  const base = file ? 0 : skip;
  let done = 0;
  const note = (): void => {
    // That of a child that has ended is not known.
    done = Math.max(done, readPosition(child.pid, watched) - base);
    follow?.(done);
  };
  const timer = follow && setInterval(note, PROGRESS_MS);
  const result = await child.done;
  clearInterval(timer);
  throwIfInterrupted();
  if (result.status !== 0) throw processFailure(what, result);
}
