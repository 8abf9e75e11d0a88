import { basename } from "node:path";
import { bashEnvironment, buildBashArgv, type BashVariables } from "../config/bash.ts";
import { VmError } from "../lib/errors.ts";
import { exec, requireProgram } from "../process/exec.ts";

/** [compat] Hooks are sourced; what they may use besides variables is `fatal`. */
const SCRIPT = `
fatal() { printf '%s: %s\\n' "$PROG" "$*" >&2; exit 1; }
. "$1"
`;

/**
 * Runs a job's `.pre` or `.post` on the host, in a shell of its own. Its output is the user's to see.
 * @throws 1 when it fails
 */
export async function runHook(path: string, hostdir: string, variables: BashVariables): Promise<void> {
  requireProgram("bash");
  const { status, signal } = await exec(buildBashArgv(variables, SCRIPT, [path]), {
    cwd: hostdir,
    stdin: 0,
    stdout: 2,
    stderr: 2,
    env: bashEnvironment(variables),
    ownSession: process.stdin.isTTY !== true,
    anyStatus: true,
  });
  if (status === 0) return;
  const how = signal ? `was killed by ${signal}` : `ended with status ${status}`;
  throw new VmError("other", `the job's ${basename(path)} ${how}`, { hint: path });
}
