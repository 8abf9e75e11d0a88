import { closeSync, constants, existsSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import script from "../../scripts/network/lan.sh" with { type: "text" };
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { flock, LOCK_EX, LOCK_NB, makePipe } from "../process/libc.ts";
import { exec, findProgram, start } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { readLastLines } from "../qemu/last-lines.ts";
import { replaceFile } from "../store/files.ts";
import type { Member } from "./addresses.ts";
import { LIFELINE } from "./place.ts";

/** Files in a network's directory. */
export const FILES = {
  lifeline: LIFELINE,
  /** Locked (flock(2)) by the network while it lives. */
  alive: "alive",
  log: "log",
  script: "lan.sh",
  ready: "ready",
  answer: "answer",
  config: "dnsmasq.conf",
  /** Its network namespace, mounted. */
  namespace: "namespace",
  /** Its number in the network's PID namespace. */
  pid: "dnsmasq.pid",
  /** Watched by dnsmasq: a file for each member. */
  leases: "leases",
  hosts: "hosts",
  /** Whether the outside is reachable. */
  outside: "outside",
} as const;

/** dnsmasq's option before the path of its configuration. */
export const CONFIG_OPTION = "--conf-file=";

/** Programs of a network, and what installs them. */
export const LAN_PROGRAMS = {
  unshare: "setpriv",
  nsenter: "setpriv",
  ip: "iproute2",
  dnsmasq: "dnsmasq",
} as const;
/** Further ones of a network with access to the outside. */
export const OUTSIDE_PROGRAMS = { pasta: "passt", nft: "nftables" } as const;

const START_MS = 30_000;
const POLL_MS = 10;

/** A running network, held by this process until disposal. */
export interface Lan extends Disposable {
  /** The pipe for qemu to hold open. */
  readonly lifeline: string;
  /** Pid of a process in its network namespace. */
  readonly pid: number;
}

interface LanRequest {
  name: string;
  directory: string;
  prefix: string;
  outside: "on" | "off";
  /** Whom it gives leases and names. */
  members: readonly Member[];
}

/**
 * Starts a network, or finds the running one. Called under the lock of its directory.
 * @throws 69 if a program is missing, 74 if it does not start, 75 if it runs with another access to the outside
 */
export async function openLan(request: LanRequest): Promise<Lan> {
  const { directory } = request;
  const lifeline = join(directory, FILES.lifeline);
  if (lstatOf(lifeline)?.isFIFO() !== true) {
    rmSync(lifeline, { force: true });
    makePipe(lifeline);
  }
  const held = openSync(lifeline, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    if (!(await isRunning(directory, held))) await startLan(request, held);
    const running = readSmall(join(directory, FILES.outside))?.trim();
    if (running !== request.outside) throw otherOutside(request.name, running);
    for (const member of request.members) announce(request, member);
    const pid = Number(readSmall(join(directory, FILES.ready)));
    return {
      lifeline,
      pid,
      [Symbol.dispose]: () => closeSync(held),
    };
  } catch (error) {
    closeSync(held);
    throw error;
  }
}

const otherOutside = (name: string, running: string | undefined): VmError =>
  new VmError("busy", `the network ${name} is running with outside=${running}`, {
    hint: `stop its members first, or use ${running === "off" ? `net=${name},outside=off` : `net=${name}`}`,
  });

/** Takes the lock of a running network. @returns undefined if it is held: the network lives */
function lockAlive(directory: string): number | undefined {
  const { O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
  const fd = openSync(join(directory, FILES.alive), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  if (flock(fd, LOCK_EX | LOCK_NB)) return fd;
  closeSync(fd);
  return undefined;
}

/** Does a network live, as far as its lock says? */
export function isAlive(directory: string): boolean {
  const fd = lockAlive(directory);
  if (fd !== undefined) closeSync(fd);
  return fd === undefined;
}

/** Does a network live, and answer now that this process holds its lifeline? Else its last member may just have left. */
async function isRunning(directory: string, held: number): Promise<boolean> {
  const word = `${process.pid}-${Date.now()}`;
  let asked = false;
  for (const deadline = Date.now() + START_MS; ; await Bun.sleep(POLL_MS)) {
    const fd = lockAlive(directory);
    if (fd !== undefined) {
      closeSync(fd);
      return false;
    }
    if (!asked) writeSync(held, `${word}\n`);
    asked = true;
    if (readSmall(join(directory, FILES.answer))?.trim() === word) return true;
    throwIfInterrupted();
    if (Date.now() > deadline)
      throw new VmError("io", `the network in ${directory} does not answer`, {
        hint: "stop its members, then start them again",
      });
  }
}

async function startLan(request: LanRequest, held: number): Promise<void> {
  const { directory, prefix, outside, name } = request;
  requirePrograms(name, outside);
  for (const file of [FILES.ready, FILES.answer, FILES.log, FILES.leases, FILES.hosts])
    rmSync(join(directory, file), { recursive: true, force: true });
  // What an earlier network did not read.
  drain(held);
  replaceFile(join(directory, FILES.outside), `${outside}\n`);
  const { makeDirectories, formatDnsmasqConfig } = await import("./dnsmasq.ts");
  makeDirectories(directory, FILES);
  replaceFile(join(directory, FILES.config), formatDnsmasqConfig(request, FILES));
  replaceFile(join(directory, FILES.script), script);
  const alive = lockAlive(directory)!;
  const log = openSync(join(directory, FILES.log), "ax", 0o600);
  const stdin = openSync(join(directory, FILES.lifeline), constants.O_RDONLY);
  const options = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"];
  const child = start(["unshare", ...options, "sh", FILES.script, prefix, outside], {
    cwd: directory,
    stdin,
    stdout: log,
    stderr: log,
    furtherFds: [alive],
    whenOrphaned: "none",
    keepOnInterrupt: true,
  });
  for (const fd of [alive, log, stdin]) closeSync(fd);
  let over = false;
  void child.done.then(() => (over = true));
  try {
    for (const deadline = Date.now() + START_MS; !existsSync(join(directory, FILES.ready));) {
      throwIfInterrupted();
      if (over || Date.now() > deadline) throw lanError(name, directory);
      await Bun.sleep(POLL_MS);
    }
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
  child.release();
}

function lanError(name: string, directory: string): VmError {
  const output = readLastLines(join(directory, FILES.log));
  return new VmError("io", `cannot start the network ${name}${output ? `:\n  ${output}` : ""}`, {
    hint: `check this host: ${commandLine("doctor")}`,
  });
}

/** Empties a pipe. */
function drain(fd: number): void {
  try {
    while (readSync(fd, Buffer.alloc(4096)) > 0);
  } catch {
    // EAGAIN: it is empty.
  }
}

/** @throws 69 naming the first missing program and its package */
function requirePrograms(name: string, outside: "on" | "off"): void {
  const programs = { ...LAN_PROGRAMS, ...(outside === "on" && OUTSIDE_PROGRAMS) };
  for (const [program, thing] of Object.entries(programs))
    if (findProgram(program) === undefined)
      throw new VmError("unavailable", `the network ${name} needs ${program}, which is not installed`, {
        hint:
          program in OUTSIDE_PROGRAMS
            ? `${installHint(PACKAGES[thing])}; or do without the outside: net=${name},outside=off`
            : installHint(PACKAGES[thing]),
      });
}

const memberFile = ({ mac }: Member): string => mac.replaceAll(":", "-");

/** Its lease and its name: dnsmasq reads new and changed files. */
function announce({ directory, prefix }: LanRequest, member: Member): void {
  const address = `${prefix}.${member.host}`;
  const write = (place: string, text: string): void => {
    const path = join(directory, place, memberFile(member));
    if (readSmall(path) !== text) replaceFile(path, text);
  };
  write(FILES.leases, `${member.mac},${address},${member.name},infinite\n`);
  write(FILES.hosts, `${address} ${member.name}\n`);
}

/**
 * Has a running network forget names that members had, and members that were removed: dnsmasq drops what it read in a file
 * only when it reads all again (dnsmasq(8), --hostsdir).
 * @param pid of a process of the network
 */
export async function reloadLan(
  directory: string,
  pid: number,
  { before, after }: { before: readonly Member[]; after: readonly Member[] },
): Promise<void> {
  const stale = before.filter(({ mac, name }) => !after.some((one) => one.mac === mac && one.name === name));
  if (stale.length === 0) return;
  for (const member of stale.filter(({ mac }) => !after.some((one) => one.mac === mac)))
    for (const place of [FILES.leases, FILES.hosts])
      rmSync(join(directory, place, memberFile(member)), { force: true });
  const namespaces = ["nsenter", "--target", String(pid), "--user", "--pid", "--"];
  // A network that an earlier version started has no such file, and keeps the names until it ends.
  const number = readSmall(join(directory, FILES.pid))?.trim();
  if (number) await exec([...namespaces, "kill", "-HUP", number], { anyStatus: true });
}
