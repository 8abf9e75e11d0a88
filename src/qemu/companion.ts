/**
 * Programs beside one qemu: passt, swtpm. Each serves a connected socket, of which qemu inherits the other end and no
 * other process has a descriptor: no file, no path, nothing to connect to. The kernel binds their lives: when qemu dies, however it
 * does, or this program before it has started qemu, the last descriptor of the other end is closed, and a companion exits
 * at the end of file.
 */
import { closeSync, constants, openSync } from "node:fs";
import { basename } from "node:path";
import { VmError } from "../lib/errors.ts";
import { within } from "../lib/within.ts";
import { socketPair } from "../process/descriptors.ts";
import { start, type Child } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { readLastLines } from "./last-lines.ts";

/** Its descriptor of the socket. */
export const COMPANION_FD = 3;

export interface CompanionOptions {
  /** The program, with `COMPANION_FD` as its connection. It must exit when that is closed. */
  argv: readonly string[];
  cwd: string;
  /** For its messages; appended. */
  logPath: string;
  /** Has it opened all that it needs? Absent: it is ready once started. */
  isReady?: () => boolean;
  hint?: string | undefined;
}

export interface Companion {
  readonly pid: number;
  /** The other end, for qemu: the caller passes it on, and closes it once qemu has it. */
  readonly fd: number;
  /** Settles when it has exited. */
  readonly done: Promise<unknown>;
  /** Lets this program exit while it runs. */
  release(): void;
  /** Ends it, for a qemu that does not start. */
  end(): Promise<void>;
}

const READY_MS = 30_000;
const POLL_MS = 10;
const EXIT_MS = 2000;

/**
 * Starts a companion and waits until it is ready.
 * @throws 69 if it is not installed, 74 with its last messages if it exits or is not ready in time
 */
export async function startCompanion(options: CompanionOptions): Promise<Companion> {
  const { argv, cwd, logPath, isReady = () => true, hint } = options;
  const [own, other] = socketPair();
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;
  const log = openSync(logPath, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0o600);
  let child: Child;
  try {
    child = start(argv, {
      cwd,
      stdout: log,
      stderr: log,
      furtherFds: [other],
      whenOrphaned: "none",
      keepOnInterrupt: true,
    });
  } catch (error) {
    closeSync(own);
    throw error;
  } finally {
    closeSync(log);
    closeSync(other);
  }
  const end = async (): Promise<void> => {
    closeSync(own);
    await endChild(child);
  };
  const fail = (why: string): VmError => {
    const output = readLastLines(logPath);
    const text = `cannot start ${basename(argv[0]!)}: ${why}${output ? `:\n  ${output}` : ""}`;
    return new VmError("io", text, { hint });
  };
  try {
    let exit: Awaited<Child["done"]> | undefined;
    void child.done.then((result) => (exit = result));
    for (const deadline = Date.now() + READY_MS; !isReady(); await Bun.sleep(POLL_MS)) {
      throwIfInterrupted();
      if (exit) throw fail(exit.signal ? `killed by ${exit.signal}` : `it exited with status ${exit.status}`);
      if (Date.now() > deadline) throw fail(`it was not ready within ${READY_MS / 1000} s`);
    }
  } catch (error) {
    await end();
    throw error;
  }
  return { pid: child.pid, fd: own, done: child.done, release: () => child.release(), end };
}

/** Waits for its exit, and kills it if it does not. */
async function endChild(child: Child): Promise<void> {
  await within(child.done, EXIT_MS, () => new Error("it still runs")).catch(() => {
    child.kill("SIGKILL");
    return child.done;
  });
}
