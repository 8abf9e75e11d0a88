import { basename } from "node:path";
import { bashEnvironment, buildBashArgv, FATAL, type BashVariables } from "../config/bash.ts";
import { VmError } from "../lib/errors.ts";
import { listDescendants, signalProcess } from "../process/descendants.ts";
import { requireProgram, start, type Child } from "../process/exec.ts";
import { Lifeline } from "../process/lifeline.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { STDIN } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

/** How a hook runs. */
export interface HookOptions {
  /** It is ended after this time, with what it has started. */
  limitSeconds?: number;
  /** Also while this program ends after a stop signal. */
  keepOnInterrupt?: boolean;
  /** Additional environment. */
  env?: Record<string, string>;
}

/** [compat] Hooks are sourced, with variables and the function `fatal`. */
const SCRIPT = `${FATAL}: "\${MEDIA=}"\n. "$1"\n`;

/**
 * Becomes the hook, once a shell has been started that kills its process group when this program dies: the kernel's signal at
 * a parent's death (prctl(2)) reaches the hook's shell only. A line in the pipe, and it has nothing to do.
 */
const WATCH = `
( (
  exec </dev/null >/dev/null 2>&1
  read -r line <&3 || kill -s KILL -- -$$
) & )
exec 3<&-
exec "$0" "$@"
`;

/** The words that start a session's first process so; descriptor 3 is the pipe (process/lifeline.ts). */
const watchHook = (words: readonly string[]): string[] => ["/bin/sh", "-c", WATCH, ...words];

/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 5000;
/** There is no event for the end of a process that is not a child. */
const POLL_MS = 20;

/**
 * Runs a hook on the host, such as a job's `.pre` or `.post`, in a separate shell. [compat] Its stdout is this program's stdout.
 * @param userShell what `vm.conf` sets besides settings
 * @throws 1 if it fails, or does not end in time
 */
export async function runHook(
  path: string,
  hostdir: string,
  variables: BashVariables,
  userShell: string,
  { limitSeconds, keepOnInterrupt = false, env }: HookOptions = {},
): Promise<void> {
  requireProgram("bash");
  const ownSession = !isTerminal(STDIN);
  // At a terminal it stays in this session, to ask there: Ctrl-C reaches what it runs, but not by nohup(1).
  const lifeline = ownSession ? new Lifeline() : undefined;
  const words = buildBashArgv(variables, SCRIPT, [path]);
  const child = start(lifeline ? watchHook(words) : words, {
    cwd: hostdir,
    stdin: 0,
    stdout: 1,
    stderr: 2,
    runAs: "user",
    env: { ...bashEnvironment(variables, userShell), ...env },
    ownSession,
    keepOnInterrupt,
    ...(lifeline && { furtherFds: [lifeline.fd], watched: !keepOnInterrupt && `the hook ${basename(path)}` }),
  });
  lifeline?.handOver();
  const failed = (how: string): VmError =>
    new VmError("other", `the hook ${basename(path)} ${how}`, { hint: path });
  let late: Promise<void> | undefined;
  const timer =
    limitSeconds === undefined
      ? undefined
      : setTimeout(() => (late = endAll(child, ownSession)), limitSeconds * 1000);
  const { status, signal } = await child.done;
  clearTimeout(timer);
  lifeline?.end();
  if (!keepOnInterrupt) throwIfInterrupted();
  if (late) {
    await late;
    throw failed(`did not end within ${limitSeconds} s, and was killed`);
  }
  if (status === 0) return;
  throw failed(signal ? `was killed by ${signal}` : `ended with status ${status}`);
}

/** SIGTERM for a hook and all that it has started, then SIGKILL for what is left. */
async function endAll({ pid }: Child, ownSession: boolean): Promise<void> {
  // bash exits at once; the program that it waited for is then a child of init.
  const all = ownSession ? [-pid] : [pid, ...listDescendants(pid)];
  for (const one of all) signalProcess(one, "SIGTERM");
  const deadline = performance.now() + GRACE_MS;
  while (all.some((one) => signalProcess(one, 0)) && performance.now() < deadline) await Bun.sleep(POLL_MS);
  for (const one of all) signalProcess(one, "SIGKILL");
}
