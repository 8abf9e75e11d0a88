import { basename } from "node:path";
import { bashEnvironment, buildBashArgv, FATAL, type BashVariables } from "../config/bash.ts";
import { VmError } from "../lib/errors.ts";
import { exec, requireProgram } from "../process/exec.ts";
import { STDIN } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

/** [compat] Hooks are sourced; what they may use besides variables is `fatal`. */
const SCRIPT = `${FATAL}: "\${MEDIA=}"\n. "$1"\n`;

/**
 * Runs a job's `.pre` or `.post` on the host, in a shell of its own. [compat] Its stdout is this program's stdout.
 * @param userShell what `vm.conf` sets besides settings
 * @throws 1 when it fails
 */
export async function runHook(
  path: string,
  hostdir: string,
  variables: BashVariables,
  userShell: string,
): Promise<void> {
  requireProgram("bash");
  const { status, signal } = await exec(buildBashArgv(variables, SCRIPT, [path]), {
    cwd: hostdir,
    stdin: 0,
    stdout: 1,
    stderr: 2,
    runAs: "user",
    env: bashEnvironment(variables, userShell),
    ownSession: !isTerminal(STDIN),
    anyStatus: true,
  });
  if (status === 0) return;
  const how = signal ? `was killed by ${signal}` : `ended with status ${status}`;
  throw new VmError("other", `the job's ${basename(path)} ${how}`, { hint: path });
}
