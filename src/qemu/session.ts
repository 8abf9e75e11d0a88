import { chmodSync, closeSync, constants, lstatSync, openSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { beginChild } from "../lib/activity.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";
import { within } from "../lib/within.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import type { Arch } from "../machine/types.ts";
import { start, type Child } from "../process/exec.ts";
import { interruption, limitWait } from "../process/signals.ts";
import { watchDirectory } from "../process/watch-directory.ts";
import { QmpClient } from "../qmp/client.ts";
import { readShutdown, type QmpEvent, type Shutdown } from "../qmp/events.ts";
import { endQemu, hasEnded, LADDER, stillRuns, type Rung } from "./end.ts";
import { lastWords } from "./last-words.ts";

/** A qemu that we started and talk to. */
export interface QemuSession {
  readonly pid: number;
  readonly qmp: QmpClient;
  /** Settles when qemu has ended. */
  readonly ended: Promise<QemuEnd>;
  /**
   * Ends qemu. Once it has begun, a further call waits for the same.
   * @throws 74 when it still runs after all of `ladder`
   */
  end(ladder?: readonly Rung[]): Promise<QemuEnd>;
  /** Leaves it alone: we exit, and it runs on. */
  release(): void;
}

export interface QemuEnd {
  /** qemu's last SHUTDOWN event; absent when it died without one. */
  shutdown: Shutdown | undefined;
  status: number | null;
  signal: string | null;
}

export interface QemuOptions {
  argv: readonly string[];
  /** Where qemu is started: relative socket names are here. */
  directory: string;
  /** Its monitor socket, absolute. */
  monitor: string;
  /** Takes what qemu prints; no file is there yet. */
  logPath: string;
  /** The command as a script that stays, for the hint when qemu does not start. */
  script?: string;
  /** qemu's descriptors from 3 on. */
  furtherFds?: number[];
  /** Whose machine it is; absent where no guest runs in it. */
  arch?: Arch;
  /** It runs on when we have exited. */
  detached?: boolean;
  /** How long qemu may take until it greets; the memory of a large guest may be allocated before. */
  startLimitMs?: number;
  onEvent?: (event: QmpEvent) => void;
}

/** qemu exited before its QMP greeting: bad arguments, or a missing feature. */
export class QemuRefusal extends VmError {}

/** How often a socket that is being set up is tried; its directory's events come first. */
const RETRY_MS = 20;
/** A loaded host may take long until qemu's main loop greets. */
const GREETING_MS = 30_000;
const START_MS = 600_000;
/** After qemu's end its socket is at its end, too. */
const LAST_EVENTS_MS = 2000;
/** The kernel ends a process within this, unless it waits for a device. */
const KILL_MS = 10_000;

/**
 * Starts qemu and waits until it answers.
 * @throws QemuRefusal with qemu's own words when it exits before that, VmError 74 when it is killed or hangs
 */
export async function startQemu(options: QemuOptions): Promise<QemuSession> {
  const { argv, directory, monitor, logPath, onEvent, startLimitMs = START_MS } = options;
  const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
  const log = openSync(logPath, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  let child: Child;
  try {
    // SIGTERM lets qemu flush its images should we be killed.
    child = start(argv, {
      cwd: directory,
      stdout: log,
      stderr: log,
      whenOrphaned: options.detached ? "none" : "TERM",
      keepOnInterrupt: true,
      furtherFds: options.furtherFds ?? [],
    });
  } finally {
    closeSync(log);
  }
  const qmp = await connectWhenUp(child, monitor, startLimitMs);
  if (!(qmp instanceof QmpClient)) throw await notStarted(child, options, qmp);
  // Under our umask qemu makes them 0700.
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (name.endsWith(".sock") && lstatSync(path, { throwIfNoEntry: false })?.isSocket())
      chmodSync(path, 0o600);
  }
  let shutdown: Shutdown | undefined;
  qmp.onEvent((event) => {
    shutdown = readShutdown(event) ?? shutdown;
    onEvent?.(event);
  });
  const ended = child.done.then(async ({ status, signal }): Promise<QemuEnd> => {
    // Its last events may still be on their way.
    await within(qmp.closed, LAST_EVENTS_MS, () => new Error("qemu's socket is not closed")).catch(() => {});
    const facts: ArchFacts | undefined = options.arch && ARCH[options.arch];
    if (status === 0 && facts?.endsWithoutEvent) shutdown ??= { reason: "guest-shutdown", guest: true };
    return { shutdown, status, signal };
  });
  let ending: Promise<QemuEnd> | undefined;
  const end = async (ladder: readonly Rung[]): Promise<QemuEnd> => {
    const isGone = (limitMs: number): Promise<boolean> => hasEnded(ended, limitMs);
    if (await endQemu({ quit: () => qmp.execute("quit"), signal: child.kill, isGone }, ladder)) return ended;
    throw stillRuns({ pid: child.pid, name: "qemu" });
  };
  return {
    pid: child.pid,
    qmp,
    ended,
    end: (ladder = LADDER) => (ending ??= end(ladder)),
    release: () => {
      qmp.close();
      child.release();
    },
  };
}

/** Why qemu did not start. It is ended where it still runs. */
async function notStarted(
  child: Child,
  { logPath, script, startLimitMs = START_MS }: QemuOptions,
  why: "exited" | "late",
): Promise<unknown> {
  if (why === "late") child.kill("SIGKILL");
  const { status, signal } = await within(child.done, KILL_MS, () =>
    stillRuns({ pid: child.pid, name: "qemu" }),
  );
  if (interruption.aborted) return interruption.reason;
  const how =
    why === "late"
      ? `no QMP greeting within ${startLimitMs / 1000} s`
      : signal
        ? `killed by ${signal}`
        : `status ${status}`;
  const words = lastWords(logPath);
  const Failure = why === "late" || signal ? VmError : QemuRefusal;
  return new Failure("io", `qemu did not start (${how})${words ? `:\n  ${words}` : ""}`, {
    hint: script && `run the command by hand: ${shellQuote(script)}`,
  });
}

/** @returns how it went wrong otherwise: qemu has exited, or has not greeted in time */
async function connectWhenUp(
  child: Child,
  socket: string,
  limitMs: number,
): Promise<QmpClient | "exited" | "late"> {
  const deadline = Date.now() + limitMs;
  const state = { failed: undefined as "exited" | "late" | undefined, next: Promise.withResolvers<void>() };
  const fail = (why: "exited" | "late"): void => {
    state.failed ??= why;
    state.next.resolve();
  };
  void child.done.then(() => fail("exited"));
  using _limit = limitWait(limitMs, () => fail("late"));
  using _child = beginChild("qemu", child.pid);
  using _watch = watchDirectory(dirname(socket), { everyMs: RETRY_MS }, () => state.next.resolve());
  while (!state.failed) {
    state.next = Promise.withResolvers<void>();
    try {
      return await QmpClient.connect(socket, Math.max(1, Math.min(GREETING_MS, deadline - Date.now())));
    } catch (error) {
      // Not there yet, there but not listening yet, or gone again with a qemu that gave up.
      if (!hasErrno(error, "ENOENT", "ECONNREFUSED") && !(error instanceof VmError)) throw error;
    }
    if (!state.failed) await state.next.promise;
  }
  return state.failed;
}
