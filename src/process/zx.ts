/**
 * zx, which starts all other programs: qemu, qemu-img, pigz, alt2deploy and the rest. Loading it takes longer than most
 * commands run, so exec.ts loads this module with the first program.
 */
import { $, quote } from "zx/core";
import { underCallerUmask } from "./umask.ts";
import { ZxChild } from "./zx-child.ts";

// The user's ZX_* variables would configure zx; they are passed to the user's programs only.
const zxVariables = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => name.startsWith("ZX_")),
);
for (const name of Object.keys(zxVariables)) delete process.env[name];
$.verbose = false;
// zx requires a shell to load; none is ever run, see `spawn` below.
$.shell = "sh";
$.quote = quote;

type Stdio = "ignore" | "pipe" | number;

export interface ZxOptions {
  stdio: Stdio[];
  cwd: string;
  env: Record<string, string | undefined>;
  ownSession: boolean;
  /** The user's program: started with the user's umask and ZX_* variables. */
  user: boolean;
}

/** A started program. */
export interface ZxProcess {
  /** 0 if it could not be started: the reason is in `stderr` of `done`. */
  pid: number;
  done: Promise<{ stdout: string; stderr: string; status: number | null; signal: string | null }>;
  unref(): void;
}

/** Starts a program with zx, without a shell. @param file full path of the program */
export function spawnWithZx([file, ...args]: readonly [string, ...string[]], options: ZxOptions): ZxProcess {
  const { stdio, cwd, env, ownSession: detached, user } = options;
  let child: ZxChild | undefined;
  const running = $({
    nothrow: true,
    quiet: true,
    // zx would pass a string to a shell; the argument list goes to the kernel as it is.
    spawn: (() => {
      const launch = (): ZxChild =>
        new ZxChild([file, ...args], {
          stdio: stdio as [Stdio, Stdio, Stdio],
          cwd,
          env: { ...(user && zxVariables), ...env },
          detached,
        });
      return (child = user ? underCallerUmask(launch) : launch());
    }) as unknown as typeof $.spawn,
  })`${file}`;
  const done = Promise.resolve(running).then(({ stdout, stderr, exitCode, signal }) => ({
    stdout,
    stderr,
    status: exitCode,
    signal,
  }));
  return { pid: child?.pid ?? 0, done, unref: () => void child?.unref() };
}
