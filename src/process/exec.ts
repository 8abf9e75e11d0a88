import { realpathSync } from "node:fs";
import { basename } from "node:path";
import { beginChild } from "../lib/activity.ts";
import { noSpaceError, VmError } from "../lib/errors.ts";
import { installHint, isThing, PACKAGES } from "../lib/packages.ts";
import { saysNoSpace } from "../lib/program-messages.ts";
import { lowerPriority } from "./libc.ts";
import { interruption } from "./signals.ts";

type Stream = "ignore" | "pipe" | number;

export interface StartOptions {
  stdin?: "ignore" | number;
  /** A descriptor for bulk data; `pipe` keeps the output in memory, for short output only. */
  stdout?: Stream;
  stderr?: Stream;
  /** Inherited as descriptors from 3 on. */
  furtherFds?: number[];
  cwd?: string;
  env?: Record<string, string | undefined>;
  /**
   * `tool` (default): one of this program's tools, such as qemu or pigz. It runs in the C locale, because its messages are
   * parsed, and under umask 077. `user`: the user's program (a hook, check-media, a viewer, ssh, a pager). It gets the
   * user's own environment, locale and umask.
   */
  runAs?: "tool" | "user";
  /** Signal that the kernel sends it when this program dies, whatever the cause: TERM to what does not end by itself. */
  whenOrphaned?: "KILL" | "TERM" | "none";
  /**
   * Low CPU and idle I/O priority, as of `nice` and `ionice -c 3`, each of which would be a program more to start. This
   * program keeps its own: only root could raise it again. For a session of its own only.
   */
  low?: boolean;
  /** Do not kill it when this program is interrupted: the caller does. */
  keepOnInterrupt?: boolean;
  /** False: it shares this program's terminal and receives its Ctrl-C, and can prompt there. */
  ownSession?: boolean;
  /** False: do not log that it still runs, for a program that the user closes, such as a viewer. Text: under that name. */
  watched?: boolean | string;
}

export interface Finished {
  argv: readonly string[];
  stdout: string;
  stderr: string;
  /** Exit status; null if a signal killed it. */
  status: number | null;
  signal: string | null;
}

export interface Child {
  readonly pid: number;
  /** Settles when the process has exited; never rejects. */
  readonly done: Promise<Finished>;
  /** Signals its whole process group. */
  kill(signal: NodeJS.Signals): void;
  /** Lets this program exit without waiting for it. */
  release(): void;
}

/** A program failed. */
export class ProcessError extends VmError {
  constructor(
    what: string,
    readonly result: Finished,
    hint?: string,
  ) {
    const { argv, status, signal, stderr } = result;
    const last = stderr.trim().split("\n").slice(-3).join("\n  ");
    const how = signal ? `was killed by ${signal}` : `exited with status ${status}`;
    super("io", `${what}: ${programOf(argv)} ${how}${last ? `:\n  ${last}` : ""}`, { hint });
  }
}

/** The error for a program that failed: 73 if there was no space, 74 otherwise. */
export const processFailure = (what: string, result: Finished): VmError =>
  saysNoSpace(result.stderr) ? noSpaceError(what) : new ProcessError(what, result);

/** Last line of a program's stderr, or its exit status or signal. */
export const lastLineOf = (result: Finished): string =>
  result.stderr.trim().split("\n").at(-1) || new ProcessError("it fails", result).message;

/** Full path of a program on PATH, or undefined. */
// By default, Bun.which uses the PATH that this process was started with.
export const findProgram = (name: string): string | undefined =>
  Bun.which(name, { PATH: process.env.PATH ?? "" }) ?? undefined;

/** Full path of a program on PATH. @throws 69 if it is not installed */
export function requireProgram(name: string, hint?: string): string {
  const path = findProgram(name);
  if (path) return path;
  if (!process.env.PATH)
    throw new VmError("unavailable", `cannot find ${name}: PATH is not set`, {
      hint: "set it: export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    });
  throw new VmError("unavailable", `${name} is not installed (not found on PATH)`, {
    hint: hint ?? (isThing(name) ? installHint(PACKAGES[name]) : `install the package that contains ${name}`),
  });
}

/** Is a program a symlink to busybox? Its applets often lack options. */
export const isBusybox = (path: string): boolean => basename(realpathSync(path)) === "busybox";

/** The signal came too late if another process is the parent by now; reads the parent that there should be as $0. */
const CHECK_PARENT = 'test "$PPID" = "$0" && exec "$@"';

/**
 * util-linux's setpriv sets PR_SET_PDEATHSIG before the program starts, so that even SIGKILL of this program leaves no
 * child behind (prctl(2)). busybox's applet cannot. What gets SIGTERM would run for ever: a shell checks that this program
 * has not died before the signal was set. What gets SIGKILL exits soon in any case.
 */
let setpriv: string | undefined | null;
function orphanGuard(signal: "KILL" | "TERM"): string[] {
  if (setpriv === undefined) {
    const path = findProgram("setpriv");
    setpriv = path && !isBusybox(path) ? path : null;
  }
  if (!setpriv) return [];
  const check = ["/bin/sh", "-c", CHECK_PARENT, String(process.pid)];
  return [setpriv, "--pdeathsig", signal, "--", ...(signal === "TERM" ? check : [])];
}

const programOf = ([name = ""]: readonly string[]): string => basename(name);

/** Synchronous: callers start a program without yielding to other tasks. */
const loadZx = (): typeof import("./zx.ts") => require("./zx.ts") as typeof import("./zx.ts");

/** Starts a program without a shell, by default in a session of its own. */
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
  // Before it has threads, or starts other programs.
  if (options.low && pid > 0) lowerPriority(pid);
  const kill = (signal: NodeJS.Signals): void => {
    try {
      if (pid > 0) process.kill(ownSession ? -pid : pid, signal);
    } catch {
      // It has exited already.
    }
  };
  const stop = (): void => kill("SIGKILL");
  if (!options.keepOnInterrupt) interruption.addEventListener("abort", stop, { once: true });
  const watched = options.watched ?? (ownSession && !options.keepOnInterrupt);
  const name = typeof watched === "string" ? watched : programOf(argv);
  const waiting = watched ? beginChild(name, pid) : undefined;
  const done = child.done.then((output) => {
    waiting?.[Symbol.dispose]();
    interruption.removeEventListener("abort", stop);
    return { argv, ...output };
  });
  return { pid, done, kill, release: () => child.unref() };
}

/**
 * Runs a program until it exits.
 * @param what start of the error message: `cannot compress disk-0.img`
 * @throws ProcessError if it fails, 73 if there was no space; the pending SignalError after a stop signal
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
