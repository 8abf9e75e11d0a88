import { closeSync, openSync, statSync, type Stats } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { installHint, type Thing, PACKAGES } from "../../lib/packages.ts";
import { exec, findProgram, processFailure, start } from "../../process/exec.ts";
import { pipe } from "../../process/libc.ts";
import { interruption } from "../../process/signals.ts";

/** The system's own programs come first; a user's PATH often lacks sbin, and may lead to private ones. */
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
    // Behind a directory that is not ours to search.
    return undefined;
  }
}

/** It is there, and we can get to it. */
export const exists = (path: string): boolean => statOf(path) !== undefined;

export const isProgram = (path: string): boolean => {
  const stats = statOf(path);
  return stats !== undefined && stats.isFile() && (stats.mode & 0o111) !== 0;
};

/** Full path of a program that belongs to the host's system, or undefined. */
export const findSystemProgram = (name: string): string | undefined =>
  PROGRAM_DIRECTORIES.map((directory) => join(directory, name)).find(isProgram);

/** Full path of a program to build with, or undefined. */
export const findHostProgram = (name: string): string | undefined =>
  findSystemProgram(name) ?? findProgram(name);

/** @param thing whose packages hold it @throws 69 */
export function requireHostProgram(name: string, thing: Thing): string {
  const path = findHostProgram(name);
  if (path) return path;
  throw new VmError("unavailable", `${name} is not installed: the rescue is built with it`, {
    hint: installHint(PACKAGES[thing]),
  });
}

/** How many words one command line takes; the kernel's limit is far above (execve(2)). */
const WORDS_AT_ONCE = 500;

/** Runs a program over many files, in as few processes as there can be. */
export async function execOver(
  argv: readonly string[],
  files: readonly string[],
  options: { cwd?: string; what?: string } = {},
): Promise<void> {
  for (let at = 0; at < files.length; at += WORDS_AT_ONCE)
    await exec([...argv, ...files.slice(at, at + WORDS_AT_ONCE)], options);
}

/** Waits for all, also when one fails: nobody writes any more into a directory that the caller then removes. */
export async function together<T extends readonly unknown[]>(
  tasks: readonly [...{ [K in keyof T]: Promise<T[K]> }],
): Promise<T> {
  await Promise.allSettled(tasks);
  return (await Promise.all(tasks)) as unknown as T;
}

const TASKS_AT_ONCE = 8;

/** Works through a list, on some of it at once. */
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

/** Sends a file through programs, one after the other, into a new file (0600). No byte passes through us. */
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
  // The last one's complaint counts first: those before it then die of a broken pipe.
  const failed = results.findLast(({ status }) => status !== 0);
  if (failed) throw processFailure(options.what, failed);
}
