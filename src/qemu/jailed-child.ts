import { closeSync, fstatSync, read, readlinkSync } from "node:fs";
import { constants } from "node:os";
import { hasErrno } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { plain } from "../lib/text.ts";
import { requireProgram, start, type Child, type StartOptions } from "../process/exec.ts";
import { limitResources, pipe, type ResourceLimits } from "../process/libc.ts";
import { Lifeline } from "../process/lifeline.ts";
import { buildJailArgv, readJailedPid, signalOfStatus, type Jail } from "./jail.ts";
import { sealDirectory } from "./seal-jail.ts";
import { watchJailed } from "./watch-jailed.ts";

/** A qemu, in its jail or without one. */
export interface QemuChild extends Child {
  /** Resolves to qemu's own pid, which `pid` is from then on; to that of bwrap if that has not started it. */
  settlePid?(): Promise<number>;
  /** Once qemu has created its sockets: has it create nothing else. Never throws. */
  seal?(): Promise<void>;
}

export type ChildOptions = StartOptions & {
  whenOrphaned: "TERM" | "none";
  cwd: string;
  furtherFds: number[];
};

/** The environment may hold secrets of the user's. Of it qemu needs the time zone only. */
const noEnvironment = (): Record<string, undefined> =>
  Object.fromEntries(
    Object.keys(process.env)
      .filter((name) => name !== "TZ")
      .map((name) => [name, undefined]),
  );

/** A core dump would hold a guest's RAM. qemu has no message queues. */
const LIMITS: ResourceLimits = { core: 0, msgqueue: 0 };
/** Of a qemu that is its user's only process. It has up to 64 for I/O of each of a few contexts, and one for each CPU. */
const MAX_THREADS = 4096;

/** @param argv qemu's command line */
export function startQemuChild(argv: readonly string[], jail: Jail, options: ChildOptions): QemuChild {
  const [qemu, ...args] = argv;
  const { cwd: directory, furtherFds, whenOrphaned } = options;
  const [readEnd, writeEnd] = pipe();
  const lifeline = jail.root && new Lifeline();
  const view = jail.root?.view();
  const reopened = furtherFds.flatMap((fd, index) => (isOnDisk(fd) ? [`/proc/self/fd/${3 + index}`] : []));
  const infoFd = 3 + furtherFds.length;
  const words = buildJailArgv(jail, view, { directory, infoFd, reopened, whenOrphaned });
  let child: Child;
  try {
    const command = [...words, requireProgram(qemu!), ...args];
    child = start(lifeline ? watchJailed(command, { infoFd, whenOrphaned }) : command, {
      ...options,
      ...(jail.root && {
        furtherFds: [...furtherFds, writeEnd],
        env: { ...noEnvironment(), ...options.env },
      }),
      ...(lifeline && { stdin: lifeline.fd, whenOrphaned: "none" }),
    });
  } catch (error) {
    closeSync(readEnd);
    lifeline?.end();
    throw error;
  } finally {
    closeSync(writeEnd);
    lifeline?.handOver();
  }
  const limits = { ...LIMITS, ...(jail.user && { nproc: MAX_THREADS }) };
  if (child.pid > 0) limitResources(child.pid, limits);
  if (!lifeline) {
    closeSync(readEnd);
    return child;
  }
  // Of others' jails, only root can change the mounts.
  const sealed =
    process.getuid!() === 0 ? view?.paths.find(({ access }) => access === "create")?.path : undefined;
  return followJailed(child, readEnd, limits, sealed, lifeline);
}

/** A file; what is in memory only (memfd_create(2)), Landlock neither knows nor restricts. */
const isOnDisk = (fd: number): boolean =>
  fstatSync(fd).isFile() && !readlinkSync(`/proc/self/fd/${fd}`).startsWith("/memfd:");

const MAX_INFO_BYTES = 4096;

/**
 * What bwrap writes before qemu is started, in pieces: it would die of a closed pipe. Closes the descriptor.
 * @returns an object of JSON; less if bwrap has failed
 */
async function readInfo(fd: number): Promise<string> {
  const bytes = Buffer.alloc(MAX_INFO_BYTES);
  let length = 0;
  try {
    for (;;) {
      const more = await readPiece(fd, bytes.subarray(length));
      length += more;
      const text = bytes.toString("latin1", 0, length);
      if (more === 0 || length === bytes.length || text.endsWith("}\n")) return text;
    }
  } finally {
    closeSync(fd);
  }
}

/** In a thread. @returns 0 at the end, or if it cannot be read */
const readPiece = (fd: number, to: Buffer): Promise<number> =>
  new Promise((resolve) => read(fd, to, 0, to.length, null, (error, length) => resolve(error ? 0 : length)));

/** bwrap is qemu's parent: it waits for it, and exits as it does. */
function followJailed(
  child: Child,
  readEnd: number,
  limits: ResourceLimits,
  sealed: string | undefined,
  lifeline: Lifeline,
): QemuChild {
  let isOver = false;
  void child.done.then(() => {
    isOver = true;
    lifeline.end();
  });
  let pid: number | undefined;
  const settled = readInfo(readEnd).then((text) => {
    pid = readJailedPid(text);
    // bwrap may have started it before its own limits were set.
    if (pid !== undefined) limitResources(pid, limits);
    return pid ?? child.pid;
  });
  return {
    get pid() {
      return pid ?? child.pid;
    },
    settlePid: () => settled,
    seal: async () => {
      const problem = sealed === undefined ? undefined : await sealDirectory(await settled, sealed);
      if (problem !== undefined && !isOver)
        warnOnce(`qemu can create files in ${plain(sealed!)}: ${plain(problem)}`);
    },
    done: child.done.then((result) => {
      const signal = signalOfStatus(result.status);
      return signal === undefined ? result : { ...result, status: null, signal: nameOfSignal(signal) };
    }),
    // bwrap would die of a signal to its process group, and its exit status be lost, before qemu has exited.
    kill: (signal) => (pid === undefined ? child.kill(signal) : sendTo(pid, signal)),
    // Nothing but qemu stays.
    release: () => {
      child.release();
      if (pid !== undefined) sendTo(child.pid, "SIGKILL");
      lifeline.end();
    },
  };
}

const nameOfSignal = (number: number): string =>
  Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? `signal ${number}`;

function sendTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!hasErrno(error, "ESRCH")) throw error;
  }
}
