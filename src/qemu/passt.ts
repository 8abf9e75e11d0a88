import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { parseHostForward } from "../machine/parse.ts";
import { requireProgram } from "../process/exec.ts";
import { COMPANION_FD, startCompanion, type Companion } from "./companion.ts";

/**
 * Pure: options of passt(1) for forwards of this host.
 * @throws 64 for what passt cannot do
 */
export function passtForwards(forwards: readonly string[]): string[] {
  return forwards.flatMap((option) => {
    const rule = option.startsWith("hostfwd=")
      ? parseHostForward(option.slice("hostfwd=".length))
      : undefined;
    if (rule === undefined || rule.guestAddress !== "")
      throw new VmError("usage", `FORWARDS: passt cannot do ${option}`, {
        hint: `forward to the guest itself: hostfwd=tcp:ADDR:PORT-:PORT; or use the user-mode network: ${commandLine("set", "NETWORKS=user")}`,
      });
    const address = rule.hostAddress === "" ? "" : `${rule.hostAddress}/`;
    const ports = `${address}${rule.hostPort}:${rule.guestPort}`;
    return [rule.protocol === "tcp" ? "--tcp-ports" : "--udp-ports", ports];
  });
}

/** passt's own name for the user that it runs as; started by root it would change to a user that cannot enter the directory. */
const runAs = (): string[] => (process.getuid!() === 0 ? ["--runas", "0"] : []);

/** Removed once passt runs; in its arguments, it stays the mark of this card's passt. */
export const passtPidPath = (directory: string, number: number): string =>
  join(directory, `passt-${number}.pid`);

/**
 * Starts passt(1) for one card.
 * @throws 69 if it is not installed, 74 with its messages if it does not start
 */
export async function startPasst(
  directory: string,
  number: number,
  forwards: readonly string[],
  logPath: string,
): Promise<Companion> {
  requireProgram("passt", installHint(PACKAGES.passt));
  const pidPath = passtPidPath(directory, number);
  rmSync(pidPath, { force: true });
  const options = ["--foreground", "--quiet", "--fd", String(COMPANION_FD), "--pid", pidPath];
  try {
    return await startCompanion({
      argv: ["passt", ...options, ...runAs(), ...passtForwards(forwards)],
      cwd: directory,
      logPath,
      isReady: () => existsSync(pidPath),
    });
  } finally {
    rmSync(pidPath, { force: true });
  }
}
