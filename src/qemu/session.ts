import {
  chmodSync,
  closeSync,
  constants,
  lchownSync,
  lstatSync,
  openSync,
  readdirSync,
  rmSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { beginChild } from "../lib/activity.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { saysMountsChanged } from "../lib/program-messages.ts";
import { shellQuote } from "../lib/shell.ts";
import { plain } from "../lib/text.ts";
import { within } from "../lib/within.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import type { Arch } from "../machine/types.ts";
import { start } from "../process/exec.ts";
import { interruption, limitWait } from "../process/signals.ts";
import { watchDirectory } from "../process/watch-directory.ts";
import { QmpClient } from "../qmp/client.ts";
import { followPanic, readShutdown, type QmpEvent, type Shutdown } from "../qmp/events.ts";
import type { Companion } from "./companion.ts";
import { terminateQemu, waitForExit, TERMINATE_STEPS, stillRunningError, type TerminateStep } from "./end.ts";
import type { Jail } from "./jail.ts";
import type { ChildOptions, QemuChild } from "./jailed-child.ts";
import { lockLog } from "./image-lock.ts";
import { readLastLines } from "./last-lines.ts";

/** A child process qemu, with a connection to its QMP monitor. */
export interface QemuSession {
  readonly pid: number;
  readonly qmp: QmpClient;
  /** Settles when qemu has exited. */
  readonly ended: Promise<QemuEnd>;
  /** The guest's kernel has panicked, and was not restarted since. */
  readonly panicked: boolean;
  /**
   * Terminates qemu. Further calls wait for the first one.
   * @throws 74 if it still runs after all steps
   */
  end(steps?: readonly TerminateStep[]): Promise<QemuEnd>;
  /** Closes the connection, and lets this program exit while qemu runs. */
  release(): Promise<void>;
}

export interface QemuEnd {
  /** qemu's last SHUTDOWN event; absent if there was none. */
  shutdown: Shutdown | undefined;
  /** The guest's kernel had panicked. */
  panicked: boolean;
  status: number | null;
  signal: string | null;
}

export interface QemuOptions {
  argv: readonly string[];
  /** Absent: qemu has all rights of this program. */
  jail: Jail | undefined;
  /** Working directory of qemu, with its sockets. */
  directory: string;
  /** Path of its QMP socket, absolute. */
  monitor: string;
  /** For qemu's stdout and stderr; must not exist. */
  logPath: string;
  /** The command as a script, for the hint if qemu does not start. */
  script?: string;
  /** Inherited as descriptors from 3 on. */
  furtherFds?: number[];
  /** Starts a program whose connection qemu inherits as the next descriptor, and that exits with qemu. */
  companion?: () => Promise<Companion>;
  /** Inherited behind that: files of guest RAM and of a saved state. */
  lastFds?: number[];
  /** Architecture of the guest; absent without a guest. */
  arch?: Arch;
  /** Additional environment. */
  env?: Record<string, string>;
  /** Low priority (process/exec.ts). */
  low?: boolean;
  /** Called with qemu's pid as soon as it is started; awaited before the session is returned. */
  onSpawn?: ((pid: number) => Promise<void>) | undefined;
  /** qemu keeps running after this program has exited. */
  detached?: boolean;
  /** Time limit for the greeting; qemu may allocate the memory of a large guest before. */
  startLimitMs?: number;
  onEvent?: (event: QmpEvent) => void;
}

/**
 * For a qemu that runs for seconds: its memory is allocated in large pages (glibc 2.35, "Memory Allocation Tunables"), where
 * the host offers them, many at once, and kept. A page fault for each 4 KiB takes a third of qemu's start.
 */
export const QUICK_MEMORY = {
  GLIBC_TUNABLES: [
    "glibc.malloc.hugetlb=1",
    `glibc.malloc.top_pad=${32 << 20}`,
    `glibc.malloc.trim_threshold=${256 << 20}`,
  ].join(":"),
} as const;

/** qemu exited before its QMP greeting: bad arguments, or a missing feature. */
export class QemuRefusal extends VmError {}

/** bwrap could not make qemu's root. */
class JailFailure extends Error {}

/** How often it tries again while the host's mounts change. */
const JAIL_RETRIES = 3;

/** Interval for connecting to the socket until qemu listens, besides events of its directory. */
const RETRY_MS = 20;
/** On a loaded host qemu's main loop may take long to greet. */
const GREETING_MS = 30_000;
const START_MS = 600_000;
/** Time limit for the end of the event stream after qemu's exit. */
const LAST_EVENTS_MS = 2000;
/** Time limit for a companion to exit after qemu. */
const COMPANION_MS = 2000;
/** Time limit for the kernel to kill a process, unless it waits for a device. */
const KILL_MS = 10_000;

/**
 * Starts qemu and waits for its QMP greeting.
 * @throws QemuRefusal with qemu's output if it exits before, VmError 74 if it is killed or hangs
 */
export async function startQemu(options: QemuOptions, retries = JAIL_RETRIES): Promise<QemuSession> {
  const { argv, directory, monitor, logPath, onEvent, startLimitMs = START_MS } = options;
  const { O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
  const log = openSync(logPath, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  lockLog(log);
  let child: QemuChild;
  let companion: Companion | undefined;
  try {
    companion = await options.companion?.();
    const jailed = options.jail && (await import("./jailed-child.ts"));
    // If this program is killed, SIGTERM lets qemu flush its images.
    const how: ChildOptions = {
      cwd: directory,
      stdout: log,
      stderr: log,
      low: options.low === true,
      ...(options.env && { env: options.env }),
      whenOrphaned: options.detached ? "none" : "TERM",
      keepOnInterrupt: true,
      furtherFds: [
        ...(options.furtherFds ?? []),
        ...(companion ? [companion.fd] : []),
        ...(options.lastFds ?? []),
      ],
    };
    child = jailed ? jailed.startQemuChild(argv, options.jail!, how) : start(argv, how);
  } catch (error) {
    await companion?.end();
    throw error;
  } finally {
    closeSync(log);
  }
  const [qmp] = await Promise.all([
    connectWhenUp(child, monitor, startLimitMs),
    options.onSpawn && ownPidOf(child).then(options.onSpawn),
  ]);
  if (!(qmp instanceof QmpClient)) {
    const failure = await startError(child, options, qmp);
    await companion?.end();
    if (!(failure instanceof JailFailure)) throw failure;
    rmSync(logPath, { force: true });
    if (retries > 0 && saysMountsChanged(failure.message)) return startQemu(options, retries - 1);
    options.jail!.root!.onFailure(failure.message);
    return startQemu({ ...options, jail: { ...options.jail!, root: undefined, user: undefined } });
  }
  // Two more programs, which nothing waits for but the end of this one.
  const sealed = child.seal?.();
  if (companion) closeSync(companion.fd);
  takeFiles(directory, options.jail);
  let shutdown: Shutdown | undefined;
  let panicked = false;
  qmp.onEvent((event) => {
    panicked = followPanic(panicked, event);
    shutdown = readShutdown(event) ?? shutdown;
    onEvent?.(event);
  });
  const ended = child.done.then(async ({ status, signal }): Promise<QemuEnd> => {
    await sealed;
    // The last events may not have been read yet.
    await within(qmp.closed, LAST_EVENTS_MS, () => new Error("qemu's socket is not closed")).catch(() => {});
    // Its state is complete when it has exited.
    if (companion)
      await within(companion.done, COMPANION_MS, () => new Error("it still runs")).catch(() => {});
    const facts: ArchFacts | undefined = options.arch && ARCH[options.arch];
    if (status === 0 && facts?.endsWithoutEvent) shutdown ??= { reason: "guest-shutdown", guest: true };
    return { shutdown, panicked, status, signal };
  });
  let ending: Promise<QemuEnd> | undefined;
  const end = async (steps: readonly TerminateStep[]): Promise<QemuEnd> => {
    const isGone = (limitMs: number): Promise<boolean> => waitForExit(ended, limitMs);
    if (await terminateQemu({ quit: () => qmp.execute("quit"), signal: child.kill, isGone }, steps))
      return ended;
    throw stillRunningError({ pid: child.pid, name: "qemu" });
  };
  return {
    get pid() {
      return child.pid;
    },
    qmp,
    ended,
    get panicked() {
      return panicked;
    },
    end: (steps = TERMINATE_STEPS) => (ending ??= end(steps)),
    release: async () => {
      await sealed;
      qmp.close();
      child.release();
      companion?.release();
    },
  };
}

/** Has what qemu has created in its directory belong to this program's user, and sockets be its alone. */
function takeFiles(directory: string, jail: Jail | undefined): void {
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (jail?.user && stats?.uid === jail.user.uid && !stats.isSymbolicLink())
      lchownSync(path, process.getuid!(), process.getgid!());
    // With umask 077, qemu creates them with mode 0700.
    if (name.endsWith(".sock") && stats?.isSocket()) chmodSync(path, 0o600);
  }
}

const ownPidOf = async (child: QemuChild): Promise<number> => (await child.settlePid?.()) ?? child.pid;

/** Error for a qemu without a greeting. It is killed if it still runs. */
async function startError(
  child: QemuChild,
  { logPath, jail, script, startLimitMs = START_MS }: QemuOptions,
  why: "exited" | "late",
): Promise<unknown> {
  if (why === "late") child.kill("SIGKILL");
  const { status, signal } = await within(child.done, KILL_MS, () =>
    stillRunningError({ pid: child.pid, name: "qemu" }),
  );
  if (interruption.aborted) return interruption.reason;
  const jailed = jail?.root && (await import("./jail.ts")).findJailFailure(readLastLines(logPath));
  if (jailed !== undefined) return new JailFailure(`bwrap: ${plain(jailed)}`);
  const how =
    why === "late" ? `no QMP greeting within ${startLimitMs / 1000} s` : describeExit({ status, signal });
  const Failure = why === "late" || signal ? VmError : QemuRefusal;
  return new Failure("io", `qemu did not start (${how})${quoteLog(logPath)}`, {
    hint: script && `run the command by hand: ${shellQuote(script)}`,
  });
}

const describeExit = ({ status, signal }: Pick<QemuEnd, "status" | "signal">): string =>
  signal ? `killed by ${signal}` : `status ${status}`;

/** The end of qemu's log, to follow a message. */
function quoteLog(logPath: string): string {
  const output = readLastLines(logPath);
  return output ? `:\n  ${output}` : "";
}

/**
 * Why a qemu without a guest exited, whose work is lost.
 * @param what start of the message: `cannot copy the disks`
 */
export const exitError = (what: string, end: QemuEnd, logPath: string, cause: unknown): VmError =>
  new VmError("io", `${what}: qemu exited (${describeExit(end)})${quoteLog(logPath)}`, {
    hint: "run the command again",
    cause,
  });

/** @returns how it went wrong otherwise: qemu has exited, or has not greeted in time */
async function connectWhenUp(
  child: QemuChild,
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
      // The socket does not exist yet, qemu does not listen yet, or it has exited.
      if (!hasErrno(error, "ENOENT", "ECONNREFUSED") && !(error instanceof VmError)) throw error;
    }
    if (!state.failed) await state.next.promise;
  }
  return state.failed;
}
