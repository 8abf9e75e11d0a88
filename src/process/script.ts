import { $ } from "zx/core";
import { shellQuote } from "../lib/shell.ts";
import { requireProgram, type Finished } from "./exec.ts";
import { throwIfInterrupted } from "./signals.ts";

// Users' ZX_* variables would change zx.
for (const name of Object.keys(process.env)) if (name.startsWith("ZX_")) delete process.env[name];

const inShell = $({
  shell: "sh",
  prefix: "",
  quote: shellQuote,
  nothrow: true,
  quiet: true,
  stdio: ["ignore", "pipe", "pipe"],
  cwd: "/",
});

/**
 * Runs a short program of the host's administration (systemctl, systemd-tmpfiles) as a line of a script: zx quotes the
 * words and sh reads them. Loaded only by the commands that need it, for zx takes longer to load than most commands to
 * run; what other programs take part in our work, exec.ts starts.
 * @throws 69 when it is not installed; the pending SignalError when the user interrupted us
 */
export async function runLine(argv: readonly string[]): Promise<Finished> {
  requireProgram(argv[0]!);
  const env = { ...process.env, LC_ALL: "C" };
  const { stdout, stderr, exitCode: status, signal } = await inShell({ env })`${argv}`;
  throwIfInterrupted();
  return { argv, stdout, stderr, status, signal };
}
