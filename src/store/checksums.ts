import { closeSync, fstatSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { briefOf, hasErrno, VmError } from "../lib/errors.ts";
import { formatSumLine, parseSumLine } from "../lib/sha256sums.ts";
import { formatSize } from "../lib/size.ts";
import { lstatOf, MAX_SMALL_BYTES, openForReading, readSmall, readSmallBytes } from "../lib/read-file.ts";
import { isPlainName } from "../lib/text.ts";
import { findProgram, start } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { SNAPSHOT } from "./layout.ts";
import { sha256 } from "../lib/crypto.ts";

/** Parsed SHA256SUMS. */
export interface ParsedSums {
  /** SHA-256 in hexadecimal digits, by file name. */
  sums: Map<string, string>;
  /** Errors in the list itself, one line each. */
  problems: string[];
}

/** Pure: parses SHA256SUMS. Each line must name a file in the same directory, once; other lines are problems. */
export function parseSums(text: string): ParsedSums {
  const sums = new Map<string, string>();
  const lines = text.split("\n");
  const problems = lines.pop() === "" ? [] : [`${SNAPSHOT.sums} is truncated`];
  for (const [index, line] of lines.entries()) {
    const { name, sum = "" } = parseSumLine(line) ?? {};
    const where = `${SNAPSHOT.sums}:${index + 1}`;
    if (!isPlainName(name)) problems.push(`${where}: not a line of sha256sum`);
    else if (sums.has(name)) problems.push(`${where}: duplicate name ${name}`);
    else sums.set(name, sum);
  }
  return { sums, problems };
}

/** @returns undefined without SHA256SUMS @throws as `readSmall` */
export function loadSums(dir: string): ParsedSums | undefined {
  const text = readSmall(join(dir, SNAPSHOT.sums));
  return text === undefined ? undefined : parseSums(text);
}

/** Names listed in SHA256SUMS; none if it does not exist. */
export const readSums = (dir: string): ReadonlyMap<string, string> => loadSums(dir)?.sums ?? new Map();

/** openssl uses the SHA instructions of the processor, coreutils on many systems does not: four times as fast. */
const PROGRAMS: readonly [argv: string[], answer: RegExp][] = [
  [["openssl", "dgst", "-sha256", "-r"], /^([0-9a-f]{64}) \*(?:stdin|-)\n$/],
  [["sha256sum"], /^([0-9a-f]{64}) [ *]-\n$/],
];

export interface SumOptions {
  /** Run with idle priority. */
  low?: boolean;
  /** Aborts the computation. */
  signal?: AbortSignal;
}

/**
 * SHA-256 of a regular file, in hexadecimal digits. The programs that compute it read stdin, and never get the name.
 * @param bytes expected length, if known; a file of another length is not read
 * @returns undefined for a file of another length
 * @throws a system error, VmError 74 if it is not a regular file or cannot be read completely
 */
export async function computeSum(
  path: string,
  bytes?: number,
  { low = false, signal }: SumOptions = {},
): Promise<string | undefined> {
  for (const [argv, answer] of PROGRAMS) {
    const fd = openForReading(path);
    try {
      const { size } = fstatSync(fd);
      if (bytes !== undefined && size !== bytes) return undefined;
      if (size <= MAX_SMALL_BYTES) return sumOfSmall(path);
      if (argv[0] === "openssl" && !findProgram("openssl")) continue;
      const child = start(argv, { stdin: fd, low });
      const stop = (): void => child.kill("SIGKILL");
      signal?.addEventListener("abort", stop, { once: true });
      if (signal?.aborted) stop();
      const { status, stdout, stderr } = await child.done;
      signal?.removeEventListener("abort", stop);
      throwIfInterrupted();
      const sum = answer.exec(stdout)?.[1];
      if (status === 0 && sum !== undefined) return sum;
      if (argv[0] === "sha256sum" || signal?.aborted)
        throw new VmError(
          "io",
          `cannot read ${path}: ${stderr.trim().split("\n").at(-1) || "sha256sum failed"}`,
        );
    } finally {
      closeSync(fd);
    }
  }
  throw new VmError("io", `cannot read ${path}`);
}

/** @throws as `readSmallBytes` */
function sumOfSmall(path: string): string {
  const content = readSmallBytes(path);
  if (content === undefined) throw Object.assign(new Error("ENOENT: no such file"), { code: "ENOENT" });
  return sha256(content);
}

/** @throws VmError 74 for a file larger than MAX_SMALL_BYTES */
function requireSmall(path: string): void {
  const brief = `it is larger than ${formatSize(MAX_SMALL_BYTES)}`;
  if ((lstatOf(path)?.size ?? 0) > MAX_SMALL_BYTES)
    throw new VmError("io", `cannot read ${path}: ${brief}`, { brief });
}

/** Runs `work` for each item, one at a time per processor. */
async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const worker = async (): Promise<void> => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

export interface CompareOptions extends SumOptions {
  /** Expected lengths, where known; files of other lengths are not read. */
  sizes?: ReadonlyMap<string, number>;
  /** Compares only these. */
  only?: (name: string) => boolean;
}

/**
 * Compares files with SHA256SUMS.
 * @returns the errors, one line each: `disk-0.img.gz: its checksum is wrong`
 */
export async function compareSums(
  dir: string,
  { sizes, only = () => true, ...options }: CompareOptions = {},
): Promise<string[]> {
  const wrong = new Map<string, string>();
  const listed = [...readSums(dir)].filter(([name]) => only(name));
  await inParallel(listed, async ([name, expected]) => {
    if (options.signal?.aborted) return;
    try {
      // Other files than disks and UEFI variables are small; those have a known length if there is a manifest.
      if (!sizes?.has(name) && (sizes || !/\.(gz|qcow2)$/.test(name))) requireSmall(join(dir, name));
      const sum = await computeSum(join(dir, name), sizes?.get(name), options);
      if (sum !== expected) wrong.set(name, `${name}: its checksum is wrong`);
    } catch (error) {
      throwIfInterrupted();
      wrong.set(name, `${name}: ${reasonFor(error)}`);
    }
  });
  return listed.flatMap(([name]) => wrong.get(name) ?? []);
}

const reasonFor = (error: unknown): string => (hasErrno(error, "ENOENT") ? "it is missing" : briefOf(error));

/** The text of SHA256SUMS for these files, as sha256sum writes it. */
export async function computeSums(dir: string, names: readonly string[]): Promise<string> {
  const lines = new Map<string, string>();
  await inParallel(names, async (name) => {
    lines.set(name, formatSumLine({ name, sum: (await computeSum(join(dir, name)))! }));
  });
  return names.map((name) => lines.get(name)!).join("");
}
