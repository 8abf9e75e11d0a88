import {
  closeSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { sha256 } from "../lib/crypto.ts";
import { readNamed } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import { within } from "../lib/within.ts";
import { findProgram, isBusybox, lastLineOf, start } from "../process/exec.ts";
import { pipe } from "../process/libc.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { buildJailArgv, FIRST_UID, type Jail } from "./jail.ts";
import { isOfSystem, viewOf } from "./jail-view.ts";

/** Programs of a jail, as far as they work on this host. */
export interface JailPrograms {
  /** Full path of bwrap; undefined: see `problem`. */
  bwrap: string | undefined;
  /** Full path of util-linux's setpriv. */
  setpriv: string | undefined;
  /** Why there are no namespaces: `bubblewrap (bwrap) is not installed`. */
  problem: string | undefined;
  /** Has the next start try again what was remembered as working. */
  forget: () => void;
}

/** A user of its own for qemu; it opens this program's files by that capability, in a root that holds no others. */
export const JAIL_CAPABILITIES = ["dac_override"] as const;

export const NOT_INSTALLED = "bubblewrap (bwrap) is not installed";

/**
 * Finds out what a jail can have on this host, by starting a program in one. That it works is remembered in `cacheDirectory`
 * until the next boot, or until bwrap or a setting of the kernel changes.
 */
export async function probeJail(cacheDirectory: string | undefined): Promise<JailPrograms> {
  const found = findProgram("setpriv");
  const setpriv = found !== undefined && !isBusybox(found) ? found : undefined;
  const bwrap = findProgram("bwrap");
  if (bwrap === undefined) return { bwrap, setpriv, problem: NOT_INSTALLED, forget: () => {} };
  const mark = markIn(cacheDirectory);
  const forget = (): void => {
    if (mark !== undefined) rmSync(mark, { force: true });
  };
  const host = identifyHost(bwrap);
  const works = mark !== undefined && readJailMark(mark)[0] === host;
  const problem = works ? undefined : await tryJail(bwrap, setpriv);
  if (problem !== undefined) return { bwrap: undefined, setpriv, problem, forget };
  if (mark !== undefined && !works) remember(mark, [host]);
  return { bwrap, setpriv, problem: undefined, forget };
}

const markIn = (cacheDirectory: string | undefined): string | undefined =>
  cacheDirectory && join(cacheDirectory, "jail");

const MAX_MARK_BYTES = 4096;
/** Programs that are remembered. */
const MAX_PROGRAMS = 16;

/** Checksums, a line each: of the host, and of programs outside of /usr that start in a jail. */
function readJailMark(path: string): string[] {
  try {
    return readNamed(path, MAX_MARK_BYTES).toString().split("\n");
  } catch {
    return [];
  }
}

/** Settings of the kernel that forbid namespaces, and this boot. */
const CONDITIONS = [
  "kernel/random/boot_id",
  "user/max_user_namespaces",
  "kernel/unprivileged_userns_clone",
  "kernel/apparmor_restrict_unprivileged_userns",
];

function identifyHost(bwrap: string): string {
  const { size, mtimeMs, mode } = statSync(bwrap);
  const conditions = CONDITIONS.map((name) => {
    try {
      return readFileSync(join("/proc/sys", name), "latin1");
    } catch {
      return "";
    }
  });
  const facts = [bwrap, size, mtimeMs, mode, process.getuid!(), ...conditions, ...readOwnLimits()];
  return sha256(facts.join("\n"));
}

/** What a service, or a container, withholds from its processes (proc(5), status). */
function readOwnLimits(): string[] {
  try {
    const status = readFileSync("/proc/self/status", "latin1");
    return [
      readlinkSync("/proc/self/ns/user"),
      ...(status.match(/^(NoNewPrivs|Seccomp|Seccomp_filters|CapBnd|CapEff):.*$/gm) ?? []),
    ];
  } catch {
    return [];
  }
}

/** Best effort: without it each start tries again. */
function remember(mark: string, lines: readonly string[]): void {
  try {
    mkdirSync(dirname(mark), { recursive: true, mode: 0o700 });
    writeFileSync(mark, lines.join("\n"), { mode: 0o600 });
  } catch {
    // HOME may be read-only or absent.
  }
}

/**
 * Why a qemu that is not the system's cannot be confined: it may need more than what is installed with it. That it can is
 * remembered until it is replaced, or the host is tried again (`probeJail`, which the caller has called).
 */
export async function findProgramProblem(
  program: string,
  bwrap: string,
  cacheDirectory: string | undefined,
): Promise<string | undefined> {
  const path = findProgram(program);
  if (path === undefined || isOfSystem(path)) return undefined;
  const mark = markIn(cacheDirectory);
  const [host, ...known] = mark === undefined ? [] : readJailMark(mark);
  const identity = identifyProgram(path);
  if (known.includes(identity)) return undefined;
  const problem = await tryJail(bwrap, undefined, [path, "--version"]);
  if (problem !== undefined) return `${plain(path)} does not start so: ${problem}`;
  if (mark !== undefined && host !== undefined)
    remember(mark, [host, ...[identity, ...known].slice(0, MAX_PROGRAMS)]);
  return undefined;
}

function identifyProgram(path: string): string {
  const { dev, ino, size, mtimeMs } = statSync(path);
  return sha256([path, realpathSync(path), dev, ino, size, mtimeMs].join("\n"));
}

/** Time limit for a jail with a program that exits at once. */
const ANSWER_MS = 30_000;

/** @returns why it does not work, in one line */
async function tryJail(
  bwrap: string,
  setpriv: string | undefined,
  command = [findProgram("true") ?? "/bin/true"],
): Promise<string | undefined> {
  const isRoot = process.getuid!() === 0;
  const view = viewOf(command[0]!, []);
  const jail: Jail = {
    root: { bwrap, offline: true, view: () => view, onFailure: () => {} },
    setpriv,
    user: isRoot && setpriv !== undefined ? { uid: FIRST_UID, capabilities: JAIL_CAPABILITIES } : undefined,
  };
  const [readEnd, writeEnd] = pipe();
  try {
    const how = { directory: "/", infoFd: 3, whenOrphaned: "none" } as const;
    const argv = [...buildJailArgv(jail, view, how), ...command];
    const child = start(argv, { furtherFds: [writeEnd] });
    const result = await within(child.done, ANSWER_MS, () => new Error("it does not end")).catch(() => {});
    throwIfInterrupted();
    if (!result) {
      child.kill("SIGKILL");
      return `bwrap: it has not ended after ${ANSWER_MS / 1000} s`;
    }
    if (result.status === 0) return undefined;
    const line = lastLineOf(result).replace(/^bwrap: /, "");
    return plain(command.length === 1 ? `bwrap: ${line}` : line);
  } finally {
    closeSync(readEnd);
    closeSync(writeEnd);
  }
}
