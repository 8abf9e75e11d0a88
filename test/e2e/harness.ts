/**
 * Shared by the end-to-end tests: the compiled binary, a VM's own directories for each test, and the
 * guests of test/guests. Real qemu, real pigz; emulated (ACCEL is left to the program).
 */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { slowness } from "../fixtures/slowness.ts";
import { buildGuests, type Guests } from "../guests/build.ts";

/** Root of the program's sources. */
export const checkout: string = resolve(import.meta.dir, "../..");

/** The compiled program; `scripts/check` builds it first. */
export const binary: string = process.env.VM_BINARY ?? join(checkout, "dist/vm");

let built: Promise<Guests> | undefined;
/** Bootable test guests; built once and kept in the checkout's cache. */
export const guests = (): Promise<Guests> => (built ??= buildGuests(join(checkout, ".cache/guests")));

/** After this a command counts as hung: a busy machine may need minutes for what takes seconds elsewhere. */
export const PATIENCE_SECONDS: number = Math.round(300 * slowness());

/** After this the log says what it waits for: on a quiet machine nothing takes as long, but for installations. */
const SLOW_SECONDS = 45;

export interface Result {
  status: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  cwd?: string;
  env?: Record<string, string | undefined>;
  /** Instead of the binary: a symlink to it, or a program (with arguments) that starts it. */
  program?: readonly string[];
  /** Kills it with SIGKILL after this time, as a test must never hang. */
  timeoutSeconds?: number;
}

/** A running program. */
export interface Running {
  readonly pid: number;
  kill(signal: NodeJS.Signals): void;
  /** stderr so far. */
  stderr(): string;
  readonly done: Promise<Result>;
}

/** A HOSTDIR with a HOME and a TMPDIR of its own; removed on disposal, processes first. */
export class Sandbox implements Disposable {
  readonly top: string;
  readonly host: string;
  readonly home: string;
  readonly tmp: string;
  /** Additional environment of the program. */
  readonly environment: Record<string, string> = {};
  readonly #running = new Set<Running>();

  /** @param hostName the directory's name: special ones are tests of their own */
  constructor(hostName = "vm1", parent = tmpdir()) {
    this.top = realpathSync(mkdtempSync(join(parent, "vm-test-")));
    this.host = join(this.top, hostName);
    this.home = join(this.top, "home");
    this.tmp = join(this.top, "tmp");
    for (const directory of [this.host, this.home, this.tmp])
      mkdirSync(directory, { mode: 0o700, recursive: true });
  }

  /** The program's environment: minimal, without the tester's own HOME. */
  env(more: RunOptions["env"] = {}): Record<string, string> {
    const all = {
      PATH: process.env.PATH,
      HOME: this.home,
      TMPDIR: this.tmp,
      LANG: "C.UTF-8",
      ...this.environment,
      ...more,
    };
    return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as Record<
      string,
      string
    >;
  }

  /** Starts the program without waiting for its end. */
  start(args: readonly string[], options: RunOptions = {}): Running {
    let stderr = "";
    const child = Bun.spawn([...(options.program ?? [binary]), ...args], {
      cwd: options.cwd ?? this.host,
      env: this.env(options.env),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const seconds = options.timeoutSeconds ?? PATIENCE_SECONDS;
    const timer = setTimeout(() => {
      stderr += `\nended by the test after ${seconds} s; what ran then:\n${processes()}`;
      child.kill("SIGKILL");
    }, seconds * 1000);
    const slow = setTimeout(
      () => console.error(`vm ${args.join(" ")}: runs for ${SLOW_SECONDS} s now, with\n${processes()}`),
      SLOW_SECONDS * 1000,
    );
    const collect = async (): Promise<void> => {
      const decoder = new TextDecoder();
      for await (const piece of child.stderr) stderr += decoder.decode(piece, { stream: true });
    };
    const done = Promise.all([child.exited, new Response(child.stdout).text(), collect()]).then(
      ([, stdout]): Result => {
        clearTimeout(timer);
        clearTimeout(slow);
        this.#running.delete(running);
        return { status: child.exitCode, signal: child.signalCode as string | null, stdout, stderr };
      },
    );
    const running: Running = {
      pid: child.pid,
      kill: (signal) => child.kill(signal),
      stderr: () => stderr,
      done,
    };
    this.#running.add(running);
    return running;
  }

  /** Runs the program to its end. */
  vm(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return this.start(args, options).done;
  }

  /** The same; throws unless it succeeds. */
  async ok(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const result = await this.vm(args, options);
    if (result.status !== 0)
      throw new Error(
        `vm ${args.join(" ")} ended with ${result.status ?? result.signal}:\n${result.stderr}${result.stdout.slice(0, 4000)}`,
      );
    return result;
  }

  /** WORKDIR, from `.work`. */
  get work(): string {
    return realpathSync(join(this.host, ".work"));
  }

  path(...parts: string[]): string {
    return join(this.host, ...parts);
  }

  read(...parts: string[]): string {
    return readFileSync(this.path(...parts), "utf8");
  }

  write(name: string, content: string): string {
    const path = this.path(name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    return path;
  }

  /** The serial console of the last run, without carriage returns. */
  console(): string {
    return readFileSync(join(this.work, "console.log"), "utf8").replaceAll("\r", "");
  }

  /** Remaining processes: qemu, pigz … */
  async leftovers(): Promise<string[]> {
    return processesIn(this.top);
  }

  [Symbol.dispose](): void {
    for (const running of this.#running) running.kill("SIGKILL");
    // A running process would remove and create files while the tree is removed.
    for (let tries = 0; tries < 250; tries++) {
      const found = processesIn(this.top);
      if (found.length === 0) break;
      for (const line of found) endProcess(Number.parseInt(line, 10));
      Bun.sleepSync(20);
    }
    rmSync(this.top, { recursive: true, force: true });
  }
}

/** The process tree of this machine, with the state of each: why a program hung. */
const processes = (): string =>
  Bun.spawnSync(["ps", "-eo", "pid,ppid,stat,wchan:20,etimes,args", "--forest"])
    .stdout.toString()
    .split("\n")
    .filter((line) => !line.includes("[k"))
    .join("\n");

/** Processes with a sandbox in their environment or arguments, each with its number: finds all that a test started. */
export function processesIn(top: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name) && +name !== process.pid)) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").join(" ");
      if (`${readFileSync(`/proc/${pid}/environ`, "utf8")}\0${words}`.includes(`${top}/`))
        found.push(`${pid} ${words.trim()}`);
    } catch {
      // It has ended, or belongs to another user.
    }
  }
  return found;
}

function endProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}

/** Waits for an effect of the program; polls, as it happens in other processes. */
export async function until<T>(
  what: string,
  look: () => T | Promise<T>,
  timeoutSeconds = PATIENCE_SECONDS,
): Promise<NonNullable<Exclude<T, false>>> {
  const deadline = Date.now() + timeoutSeconds * 1000;
  for (;;) {
    const seen = await look();
    if (seen) return seen as NonNullable<Exclude<T, false>>;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutSeconds} s in vain: ${what}`);
    await Bun.sleep(30);
  }
}
