import { closeSync, openSync, statSync, type Stats } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { installHint, type Thing, PACKAGES } from "../../lib/packages.ts";
import { exec, findProgram, processFailure, start } from "../../process/exec.ts";
import { pipe } from "../../process/libc.ts";
import { interruption } from "../../process/signals.ts";

/** System directories come first: a user's PATH often lacks sbin, and may contain private programs. */
export const PROGRAM_DIRECTORIES = [
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
  "/usr/local/sbin",
  "/usr/local/bin",
] as const;

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    // In a directory without search permission.
    return undefined;
  }
}

/** Does it exist, and is it accessible? */
export const exists = (path: string): boolean => statOf(path) !== undefined;

export const isProgram = (path: string): boolean => {
  const stats = statOf(path);
  return stats !== undefined && stats.isFile() && (stats.mode & 0o111) !== 0;
};

/** Full path of a program in the host's system directories, or undefined. */
export const findSystemProgram = (name: string): string | undefined =>
  PROGRAM_DIRECTORIES.map((directory) => join(directory, name)).find(isProgram);

/** Full path of a build tool, or undefined. */
export const findHostProgram = (name: string): string | undefined =>
  findSystemProgram(name) ?? findProgram(name);

/** @param thing whose packages hold it @throws 69 */
export function requireHostProgram(name: string, thing: Thing): string {
  const path = findHostProgram(name);
  if (path) return path;
  throw new VmError("unavailable", `cannot build the rescue: ${name} is not installed`, {
    hint: installHint(PACKAGES[thing]),
  });
}

/** Maximum arguments of a command line, far below the kernel's limit (execve(2)). */
const WORDS_AT_ONCE = 500;

/** Runs a program over many files, with as few processes as possible. */
export async function execOver(
  argv: readonly string[],
  files: readonly string[],
  options: { cwd?: string; what?: string } = {},
): Promise<void> {
  for (let at = 0; at < files.length; at += WORDS_AT_ONCE)
    await exec([...argv, ...files.slice(at, at + WORDS_AT_ONCE)], options);
}

/** Waits for all, even if one fails, so that none still writes to a directory that the caller removes. */
export async function together<T extends readonly unknown[]>(
  tasks: readonly [...{ [K in keyof T]: Promise<T[K]> }],
): Promise<T> {
  await Promise.allSettled(tasks);
  return (await Promise.all(tasks)) as unknown as T;
}

const TASKS_AT_ONCE = 8;

/** Processes a list with limited parallelism. */
export async function forEachTogether<T>(
  items: readonly T[],
  task: (item: T) => Promise<void>,
): Promise<void> {
  const waiting = [...items];
  const worker = async (): Promise<void> => {
    for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) await task(item);
  };
  await together(Array.from({ length: TASKS_AT_ONCE }, worker));
}

/** Pipes a file through programs into a new file (0600), without copying the data through this process. */
export async function execPipeline(
  from: string,
  programs: readonly (readonly string[])[],
  to: string,
  options: { cwd?: string; what: string },
): Promise<void> {
  let input = openSync(from, "r");
  const output = openSync(to, "wx", 0o600);
  const children = programs.map((argv, index) => {
    const [readEnd, writeEnd] = index === programs.length - 1 ? [output, output] : pipe();
    const child = start(argv, {
      stdin: input,
      stdout: writeEnd,
      ...(options.cwd ? { cwd: options.cwd } : {}),
    });
    closeSync(input);
    closeSync(writeEnd);
    input = readEnd;
    return child;
  });
  const results = await Promise.all(children.map(({ done }) => done));
  if (interruption.aborted) throw interruption.reason;
  // The error of the last one is reported first: its failure kills the others by SIGPIPE.
  const failed = results.findLast(({ status }) => status !== 0);
  if (failed) throw processFailure(options.what, failed);
}
