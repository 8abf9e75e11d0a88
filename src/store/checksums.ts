import { closeSync, fstatSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { briefOf, hasErrno, VmError } from "../lib/errors.ts";
import { formatSumLine, parseSumLine } from "../lib/sha256sums.ts";
import { formatSize } from "../lib/size.ts";
import { lstatOf, MAX_SMALL_BYTES, openForReading, readSmall, readSmallBytes } from "../lib/read-file.ts";
import { isPlainName } from "../lib/text.ts";
import { findProgram, start } from "../process/exec.ts";
import { gentle } from "../process/gentle.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { SNAPSHOT } from "./layout.ts";
import { sha256 } from "../lib/crypto.ts";

/** What SHA256SUMS says. */
export interface ParsedSums {
  /** SHA-256 in hexadecimal digits, by file name. */
  sums: Map<string, string>;
  /** What is wrong with the list itself, a line each. */
  problems: string[];
}

/** Pure: the lines of SHA256SUMS. Each names a file beside it, once; anything else is a problem and names nothing. */
export function parseSums(text: string): ParsedSums {
  const sums = new Map<string, string>();
  const lines = text.split("\n");
  const problems = lines.pop() === "" ? [] : [`${SNAPSHOT.sums} is cut off`];
  for (const [index, line] of lines.entries()) {
    const { name, sum = "" } = parseSumLine(line) ?? {};
    const where = `${SNAPSHOT.sums}:${index + 1}`;
    if (!isPlainName(name)) problems.push(`${where}: no line of sha256sum's`);
    else if (sums.has(name)) problems.push(`${where}: it names ${name} again`);
    else sums.set(name, sum);
  }
  return { sums, problems };
}

/** @returns undefined without SHA256SUMS @throws as `readSmall` */
export function loadSums(dir: string): ParsedSums | undefined {
  const text = readSmall(join(dir, SNAPSHOT.sums));
  return text === undefined ? undefined : parseSums(text);
}

/** The files that SHA256SUMS vouches for; none where it is not there. */
export const readSums = (dir: string): ReadonlyMap<string, string> => loadSums(dir)?.sums ?? new Map();

/** openssl uses the processor's instructions for it, which the coreutils of many a system do not: four times as fast. */
const PROGRAMS: readonly [argv: string[], answer: RegExp][] = [
  [["openssl", "dgst", "-sha256", "-r"], /^([0-9a-f]{64}) \*(?:stdin|-)\n$/],
  [["sha256sum"], /^([0-9a-f]{64}) [ *]-\n$/],
];

export interface SumOptions {
  /** Other programs go first. */
  low?: boolean;
  /** Ends it. */
  signal?: AbortSignal;
}

/**
 * SHA-256 of a regular file, in hexadecimal digits. Programs that compute it get the file as their stdin, never its name.
 * @param bytes its length, where that is known: a file of another length is not read
 * @returns undefined for a file of another length
 * @throws a system error, VmError 74 for what is no regular file or cannot be read to its end
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
      const child = start(low ? gentle(argv) : argv, { stdin: fd });
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

/** @throws VmError 74 for a file that is larger than small ones are, whatever is in it */
function requireSmall(path: string): void {
  const brief = `it is larger than ${formatSize(MAX_SMALL_BYTES)}`;
  if ((lstatOf(path)?.size ?? 0) > MAX_SMALL_BYTES)
    throw new VmError("io", `cannot read ${path}: ${brief}`, { brief });
}

/** Runs work on each item, as many at a time as there are processors. */
async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const worker = async (): Promise<void> => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

export interface CompareOptions extends SumOptions {
  /** Lengths of files, as far as they are known: others are not read. */
  sizes?: ReadonlyMap<string, number>;
  /** Compares only these. */
  only?: (name: string) => boolean;
}

/**
 * Compares files with SHA256SUMS.
 * @returns what is wrong, a line each: `disk-0.img.gz: its checksum is wrong`
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
      // All but disks and UEFI variables is small, and those have a known length where there is a manifest.
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
