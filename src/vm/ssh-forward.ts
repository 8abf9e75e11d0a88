import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { findForward, SSH_PORT } from "../machine/parse.ts";

/** Starts the VM so that ssh finds it. */
export const START_WITH_SSH = ["run", "--detach", "--ssh", "--wait=ssh"];

/** Where on this host the guest's SSH is found. @throws 69 when nothing leads there */
export function requireSsh(forwards: readonly string[]): { host: string; port: number } {
  const place = findForward(forwards, SSH_PORT);
  if (place) return place;
  throw new VmError("unavailable", `no port of this host leads to the guest's port ${SSH_PORT}`, {
    hint: `restart it with one: ${commandLine("stop")} && ${commandLine(...START_WITH_SSH)}`,
  });
}
