import { chmodSync, closeSync, lstatSync, readdirSync, watch, type FSWatcher } from "node:fs";
import { dirname, join } from "node:path";
import { beginChild } from "../lib/activity.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { readTail } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { quoteLine } from "../lib/text.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import type { Arch } from "../machine/types.ts";
import { start, type Child } from "../process/exec.ts";
import { interruption } from "../process/signals.ts";
import { QmpClient } from "../qmp/client.ts";
import { parseShutdown, type Shutdown } from "../qmp/commands.ts";
import type { QmpEvent } from "../qmp/protocol.ts";

/** A qemu that we started and talk to. */
export interface RunningMachine {
  readonly pid: number;
  readonly qmp: QmpClient;
  /** Settles when qemu has ended. */
  readonly ended: Promise<MachineEnd>;
  kill(signal: NodeJS.Signals): void;
  /** Leaves it to itself: we end, and it goes on. */
  release(): void;
}

export interface MachineEnd {
  /** qemu's last SHUTDOWN event; absent when it died without one. */
  shutdown: Shutdown | undefined;
  status: number | null;
  signal: string | null;
}

export interface LaunchOptions {
  argv: readonly string[];
  /** Where qemu is started: relative socket names are here. */
  directory: string;
  /** Its monitor socket, absolute. */
  monitor: string;
  /** Takes what qemu prints; a new file. */
  logFd: number;
  logPath: string;
  /** The command as a script that stays, for the hint when qemu does not start. */
  script?: string;
  /** qemu's descriptors from 3 on. */
  furtherFds?: number[];
  /** Whose machine it is; absent where no guest runs in it. */
  arch?: Arch;
  /** It is to go on without us. */
  detached?: boolean;
  onEvent: (event: QmpEvent) => void;
}

/** qemu has ended by itself before it answered: it does not like its arguments, or lacks something. */
export class QemuRefusal extends VmError {}

/** How often a socket that is being set up is tried; its directory's events come first. */
const RETRY_MS = 20;
/** Of its log, what is looked at for its last lines. */
const LOG_END_BYTES = 64 << 10;
/** A loaded host may take long until qemu's main loop greets. */
const GREETING_MS = 30_000;
/** After qemu's end its socket is at its end, too. */
const LAST_EVENTS_MS = 2000;
/** After a stop signal it gets this long. */
const HURRY_MS = 5000;

/**
 * Starts qemu and waits until it answers.
 * @throws VmError with qemu's own words when it ends before that
 */
export async function launchQemu(options: LaunchOptions): Promise<RunningMachine> {
  const { argv, directory, monitor, logFd, logPath } = options;
  // SIGTERM lets qemu flush its images should we be killed.
  const child = start(argv, {
    cwd: directory,
    stdout: logFd,
    stderr: logFd,
    whenOrphaned: options.detached ? "none" : "TERM",
    keepOnInterrupt: true,
    furtherFds: options.furtherFds ?? [],
  });
  closeSync(logFd);
  const qmp = await connectWhenUp(child, monitor);
  if (!qmp) {
    const { status, signal } = await child.done;
    if (interruption.aborted) throw interruption.reason;
    const words = lastWords(logPath);
    const how = signal ? `killed by ${signal}` : `status ${status}`;
    const Failure = signal ? VmError : QemuRefusal;
    throw new Failure("io", `qemu did not start (${how})${words ? `:\n  ${words}` : ""}`, {
      hint: options.script && `run the command by hand: ${shellQuote(options.script)}`,
    });
  }
  // Under our umask qemu makes them 0700.
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (name.endsWith(".sock") && lstatSync(path).isSocket()) chmodSync(path, 0o600);
  }
  let shutdown: Shutdown | undefined;
  qmp.onEvent((event) => {
    shutdown = parseShutdown(event) ?? shutdown;
    options.onEvent(event);
  });
  const ended = child.done.then(async ({ status, signal }): Promise<MachineEnd> => {
    // Its last events may still be on their way.
    const { promise, resolve } = Promise.withResolvers<void>();
    const limit = setTimeout(resolve, LAST_EVENTS_MS);
    await Promise.race([qmp.closed, promise]);
    clearTimeout(limit);
    const facts: ArchFacts | undefined = options.arch && ARCH[options.arch];
    if (status === 0 && facts?.endsWithoutEvent) shutdown ??= { reason: "guest-shutdown", guest: true };
    return { shutdown, status, signal };
  });
  const release = (): void => {
    qmp.close();
    child.release();
  };
  return { pid: child.pid, qmp, ended, kill: child.kill, release };
}

/** The last lines that qemu printed; empty where no log is, or something else in its place. */
export function lastWords(logPath: string): string {
  let text = "";
  try {
    text = readTail(logPath, LOG_END_BYTES) ?? "";
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
  }
  return text.trim().split("\n").slice(-4).map(quoteLine).join("\n  ");
}

/** Bun cannot watch a path with a backslash; the retries do then. */
function watchDirectory(path: string, wake: () => void): FSWatcher | undefined {
  try {
    return watch(path, wake);
  } catch {
    return undefined;
  }
}

async function connectWhenUp(child: Child, socket: string): Promise<QmpClient | undefined> {
  const state = { over: false, wake: () => {} };
  using _child = beginChild("qemu", child.pid);
  const watcher = watchDirectory(dirname(socket), () => state.wake());
  let limit: ReturnType<typeof setTimeout> | undefined;
  void child.done.then(() => {
    state.over = true;
    clearTimeout(limit);
    state.wake();
  });
  const hurry = (): void => {
    limit = setTimeout(() => child.kill("SIGKILL"), HURRY_MS);
  };
  interruption.addEventListener("abort", hurry);
  if (interruption.aborted) hurry();
  try {
    while (!state.over) {
      try {
        return await QmpClient.connect(socket, GREETING_MS);
      } catch (error) {
        // Not there yet, there but not listening yet, or gone again with a qemu that gave up.
        if (!hasErrno(error, "ENOENT", "ECONNREFUSED") && !(error instanceof VmError)) throw error;
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      state.wake = resolve;
      const timer = setTimeout(resolve, RETRY_MS);
      await promise;
      clearTimeout(timer);
    }
    return undefined;
  } finally {
    clearTimeout(limit);
    interruption.removeEventListener("abort", hurry);
    watcher?.close();
  }
}
