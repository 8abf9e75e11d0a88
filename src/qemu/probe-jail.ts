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
  /** setpriv and the kernel have Landlock. */
  landlock: boolean;
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
 * until the next boot, or until bwrap, setpriv or a setting of the kernel changes.
 */
export async function probeJail(cacheDirectory: string | undefined): Promise<JailPrograms> {
  const found = findProgram("setpriv");
  const setpriv = found !== undefined && !isBusybox(found) ? found : undefined;
  const bwrap = findProgram("bwrap");
  if (bwrap === undefined)
    return { bwrap, setpriv, landlock: false, problem: NOT_INSTALLED, forget: () => {} };
  const mark = markIn(cacheDirectory);
  const forget = (): void => {
    if (mark !== undefined) rmSync(mark, { force: true });
  };
  const host = identifyHost(bwrap, setpriv);
  const known = mark === undefined ? undefined : readJailMark(mark)[0];
  if (known === host || known === host + LANDLOCKED)
    return { bwrap, setpriv, landlock: known !== host, problem: undefined, forget };
  const { landlock, problem } = await tryHost(bwrap, setpriv);
  if (problem !== undefined) return { bwrap: undefined, setpriv, landlock, problem, forget };
  if (mark !== undefined) remember(mark, [landlock ? host + LANDLOCKED : host]);
  return { bwrap, setpriv, landlock, problem: undefined, forget };
}

/** Behind the host's checksum in the mark. */
const LANDLOCKED = " landlock";

/** What bwrap complains about is the same without Landlock. */
async function tryHost(
  bwrap: string,
  setpriv: string | undefined,
): Promise<Pick<JailPrograms, "landlock" | "problem">> {
  const problem = setpriv === undefined ? undefined : await tryJail(bwrap, { setpriv, landlock: true });
  const landlock = setpriv !== undefined && problem === undefined;
  if (landlock || problem?.isOfBwrap) return { landlock, problem: problem?.text };
  return { landlock, problem: (await tryJail(bwrap, { setpriv, landlock }))?.text };
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

function identifyHost(bwrap: string, setpriv: string | undefined): string {
  const programs = [bwrap, ...(setpriv === undefined ? [] : [setpriv])].flatMap((path) => {
    const { size, mtimeMs, mode } = statSync(path);
    return [path, size, mtimeMs, mode];
  });
  const conditions = CONDITIONS.map((name) => {
    try {
      return readFileSync(join("/proc/sys", name), "latin1");
    } catch {
      return "";
    }
  });
  const facts = [...programs, process.getuid!(), ...conditions, ...readOwnLimits()];
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
  const problem = await tryJail(bwrap, { setpriv: undefined, landlock: false }, [path, "--version"]);
  if (problem !== undefined) return `${plain(path)} does not start so: ${problem.text}`;
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
  { setpriv, landlock }: Pick<JailPrograms, "setpriv" | "landlock">,
  command = [findProgram("true") ?? "/bin/true"],
): Promise<{ text: string; isOfBwrap: boolean } | undefined> {
  const isRoot = process.getuid!() === 0;
  const view = viewOf(command[0]!, []);
  const jail: Jail = {
    root: { bwrap, offline: true, landlock, view: () => view, onFailure: () => {} },
    setpriv,
    user: isRoot && setpriv !== undefined ? { uid: FIRST_UID, capabilities: JAIL_CAPABILITIES } : undefined,
  };
  const [readEnd, writeEnd] = pipe();
  try {
    const how = { directory: "/", infoFd: 3, reopened: [], whenOrphaned: "none" } as const;
    const argv = [...buildJailArgv(jail, view, how), ...command];
    const child = start(argv, { furtherFds: [writeEnd] });
    const result = await within(child.done, ANSWER_MS, () => new Error("it does not end")).catch(() => {});
    throwIfInterrupted();
    if (!result) {
      child.kill("SIGKILL");
      return { text: `bwrap: it has not ended after ${ANSWER_MS / 1000} s`, isOfBwrap: true };
    }
    if (result.status === 0) return undefined;
    const said = lastLineOf(result);
    const line = said.replace(/^bwrap: /, "");
    return { text: plain(command.length === 1 ? `bwrap: ${line}` : line), isOfBwrap: line !== said };
  } finally {
    closeSync(readEnd);
    closeSync(writeEnd);
  }
}
