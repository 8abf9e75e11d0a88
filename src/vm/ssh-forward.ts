import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { findForward, SSH_PORT } from "../machine/parse.ts";

/** Starts the VM with a forward to its SSH. */
export const START_WITH_SSH = ["run", "--detach", "--ssh", "--wait=ssh"];

/** The host address that is forwarded to the guest's SSH. @throws 69 if there is none */
export function requireSsh(forwards: readonly string[]): { host: string; port: number } {
  const place = findForward(forwards, SSH_PORT);
  if (place) return place;
  throw new VmError("unavailable", `no port of this host is forwarded to the guest's port ${SSH_PORT}`, {
    hint: `forward one: ${commandLine("forward", "add", `tcp:127.0.0.1:2222-:${SSH_PORT}`)}`,
  });
}
