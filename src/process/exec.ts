import { realpathSync } from "node:fs";
import { basename } from "node:path";
import { beginChild } from "../lib/activity.ts";
import { noSpaceError, VmError } from "../lib/errors.ts";
import { installHint, isThing, PACKAGES } from "../lib/packages.ts";
import { saysNoSpace } from "../lib/program-messages.ts";
import { interruption } from "./signals.ts";

type Stream = "ignore" | "pipe" | number;

export interface StartOptions {
  stdin?: "ignore" | number;
  /** A descriptor for bulk data; `pipe` keeps the text in memory, for short answers only. */
  stdout?: Stream;
  stderr?: Stream;
  /** Its descriptors from 3 on. */
  furtherFds?: number[];
  cwd?: string;
  env?: Record<string, string | undefined>;
  /**
   * `tool` (default): one of this program's tools, such as qemu or pigz. It runs in the C locale, which its messages are
   * read in, and under umask 077. `user`: the user's program (a hook, check-media, a viewer, ssh, a pager). It gets the
   * user's own environment, locale and umask.
   */
  runAs?: "tool" | "user";
  /** The signal the kernel sends it when this program dies, whatever the cause. */
  whenOrphaned?: "KILL" | "TERM" | "none";
  /** Leave it alone when the user interrupts us: the caller ends it itself. */
  keepOnInterrupt?: boolean;
  /** False: it shares our terminal and its Ctrl-C, and may ask there. */
  ownSession?: boolean;
  /** False: the user ends it, such as a viewer; that it still runs is not logged. */
  watched?: boolean;
}

export interface Finished {
  argv: readonly string[];
  stdout: string;
  stderr: string;
  /** Exit status; null when a signal ended it. */
  status: number | null;
  signal: string | null;
}

export interface Child {
  readonly pid: number;
  /** Settles when the process has ended; never rejects. */
  readonly done: Promise<Finished>;
  /** Signals its whole process group. */
  kill(signal: NodeJS.Signals): void;
  /** We end without waiting for it. */
  release(): void;
}

/** A program ended otherwise than it should have. */
export class ProcessError extends VmError {
  constructor(
    what: string,
    readonly result: Finished,
    hint?: string,
  ) {
    const { argv, status, signal, stderr } = result;
    const last = stderr.trim().split("\n").slice(-3).join("\n  ");
    const how = signal ? `was killed by ${signal}` : `ended with status ${status}`;
    super("io", `${what}: ${programOf(argv)} ${how}${last ? `:\n  ${last}` : ""}`, { hint });
  }
}

/** The error for a program that failed: no room is 73, anything else 74. */
export const processFailure = (what: string, result: Finished): VmError =>
  saysNoSpace(result.stderr) ? noSpaceError(what) : new ProcessError(what, result);

/** The last line that a program printed on stderr, or how it ended. */
export const lastLineOf = (result: Finished): string =>
  result.stderr.trim().split("\n").at(-1) || new ProcessError("it fails", result).message;

/** Full path of a program on PATH, or undefined. */
// Bun.which would look at the PATH that this process was started with.
export const findProgram = (name: string): string | undefined =>
  Bun.which(name, { PATH: process.env.PATH ?? "" }) ?? undefined;

/** Full path of a program, or an error that says it must be installed. */
export function requireProgram(name: string, hint?: string): string {
  const path = findProgram(name);
  if (path) return path;
  if (!process.env.PATH)
    throw new VmError("unavailable", `cannot look for ${name}: PATH is not set`, {
      hint: "set it: export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    });
  throw new VmError("unavailable", `${name} is not installed (not found on PATH)`, {
    hint: hint ?? (isThing(name) ? installHint(PACKAGES[name]) : `install the package that holds ${name}`),
  });
}

/** busybox stands in for many programs, by links, and often cannot do all that they can. */
export const isBusybox = (path: string): boolean => basename(realpathSync(path)) === "busybox";

/**
 * util-linux's setpriv sets PR_SET_PDEATHSIG before the program starts, so that even SIGKILL to us
 * leaves no child behind (prctl(2)). busybox's namesake cannot.
 */
let setpriv: string | undefined | null;
function orphanGuard(signal: "KILL" | "TERM"): string[] {
  if (setpriv === undefined) {
    const path = findProgram("setpriv");
    setpriv = path && !isBusybox(path) ? path : null;
  }
  return setpriv ? [setpriv, "--pdeathsig", signal, "--"] : [];
}

/** The program's own name, behind `nice -n 10 ionice -c 3` (gentle.ts), which end up as the same process. */
function programOf(argv: readonly string[]): string {
  let at = 0;
  while (/^(nice|ionice)$/.test(argv[at] ?? "") && argv.length > at + 3) at += 3;
  return basename(argv[at] ?? "");
}

/** Synchronous: a program is started within a step that nothing may come between. */
const loadZx = (): typeof import("./zx.ts") => require("./zx.ts") as typeof import("./zx.ts");

/** Starts a program, usually in a session of its own, without any shell. */
export function start(argv: readonly string[], options: StartOptions = {}): Child {
  const { whenOrphaned = "KILL", ownSession = true, runAs = "tool" } = options;
  const path = requireProgram(argv[0]!);
  const guard = whenOrphaned === "none" ? [] : orphanGuard(whenOrphaned);
  const child = loadZx().spawnWithZx([...guard, path, ...argv.slice(1)] as [string, ...string[]], {
    stdio: [
      options.stdin ?? "ignore",
      options.stdout ?? "pipe",
      options.stderr ?? "pipe",
      ...(options.furtherFds ?? []),
    ],
    cwd: options.cwd ?? "/",
    env: { ...process.env, ...(runAs === "tool" && { LC_ALL: "C" }), ...options.env },
    ownSession,
    user: runAs === "user",
  });
  const { pid } = child;
  const kill = (signal: NodeJS.Signals): void => {
    try {
      if (pid > 0) process.kill(ownSession ? -pid : pid, signal);
    } catch {
      // It has ended already.
    }
  };
  const stop = (): void => kill("SIGKILL");
  if (!options.keepOnInterrupt) interruption.addEventListener("abort", stop, { once: true });
  const isWatched = options.watched ?? (ownSession && !options.keepOnInterrupt);
  const waiting = isWatched ? beginChild(programOf(argv), pid) : undefined;
  const done = child.done.then((output) => {
    waiting?.[Symbol.dispose]();
    interruption.removeEventListener("abort", stop);
    return { argv, ...output };
  });
  return { pid, done, kill, release: () => child.unref() };
}

/**
 * Runs a program to its end.
 * @param what begins the error: `cannot compress disk-0.img`
 * @throws ProcessError when it fails, 73 when that was for want of room; the pending SignalError when the user interrupted us
 */
export async function exec(
  argv: readonly string[],
  options: StartOptions & { what?: string; anyStatus?: boolean } = {},
): Promise<Finished> {
  const result = await start(argv, options).done;
  if (interruption.aborted && !options.keepOnInterrupt) throw interruption.reason;
  if (result.status !== 0 && !options.anyStatus)
    throw processFailure(options.what ?? `${argv[0]} failed`, result);
  return result;
}
