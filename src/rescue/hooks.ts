import { basename } from "node:path";
import { bashEnvironment, buildBashArgv, FATAL, type BashVariables } from "../config/bash.ts";
import { VmError } from "../lib/errors.ts";
import { requireProgram, start } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { STDIN } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

/** How a hook runs. */
export interface HookOptions {
  /** Killed after this time. */
  limitMs?: number;
  /** Also while this program ends after a stop signal. */
  keepOnInterrupt?: boolean;
  /** Additional environment. */
  env?: Record<string, string>;
}

/** [compat] Hooks are sourced, with variables and the function `fatal`. */
const SCRIPT = `${FATAL}: "\${MEDIA=}"\n. "$1"\n`;

/**
 * Runs a hook on the host, such as a job's `.pre` or `.post`, in a separate shell. [compat] Its stdout is this program's stdout.
 * @param userShell what `vm.conf` sets besides settings
 * @throws 1 if it fails
 */
export async function runHook(
  path: string,
  hostdir: string,
  variables: BashVariables,
  userShell: string,
  { limitMs, keepOnInterrupt = false, env }: HookOptions = {},
): Promise<void> {
  requireProgram("bash");
  const child = start(buildBashArgv(variables, SCRIPT, [path]), {
    cwd: hostdir,
    stdin: 0,
    stdout: 1,
    stderr: 2,
    runAs: "user",
    env: { ...bashEnvironment(variables, userShell), ...env },
    ownSession: !isTerminal(STDIN),
    keepOnInterrupt,
  });
  const timer = limitMs === undefined ? undefined : setTimeout(() => child.kill("SIGKILL"), limitMs);
  const { status, signal } = await child.done;
  clearTimeout(timer);
  if (!keepOnInterrupt) throwIfInterrupted();
  if (status === 0) return;
  const how = signal ? `was killed by ${signal}` : `ended with status ${status}`;
  throw new VmError("other", `the hook ${basename(path)} ${how}`, { hint: path });
}
