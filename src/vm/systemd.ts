import { realpathSync } from "node:fs";
import { basename, isAbsolute, join, resolve } from "node:path";
import { log } from "../lib/log.ts";
import { lstatOf } from "../lib/read-file.ts";
import { callerUid, findUserName } from "../lib/trust.ts";
import { exec, findProgram } from "../process/exec.ts";
import type { ProcessFacts } from "./context.ts";

/** sd_booted(3) */
export const isSystemdRunning = (): boolean => lstatOf("/run/systemd/system") !== undefined;

/** Directory for units of the administrator or the user (systemd.unit(5)). */
export function unitDirectory({ env, home }: Pick<ProcessFacts, "env" | "home">, system: boolean): string {
  if (system) return "/etc/systemd/system";
  const config = env.XDG_CONFIG_HOME;
  return join(config && isAbsolute(config) ? config : join(home, ".config"), "systemd/user");
}

/** `systemctl` for one of both managers. */
export const systemctl = (system: boolean, ...words: string[]): string[] => [
  "systemctl",
  ...(system ? [] : ["--user"]),
  ...words,
];

/** @param what start of the error message: `cannot change the timer in systemd` */
export const runSystemctl = (what: string, system: boolean, ...words: string[]): Promise<unknown> =>
  exec(systemctl(system, ...words), { what });

/**
 * The path of this program, by the name it was started under, which determines its settings.
 * @param user what will run it, for a warning
 */
export function ownPath({ prog, cwd }: Pick<ProcessFacts, "prog" | "cwd">, user: string): string {
  const { argv0, execPath } = process;
  const named = argv0.includes("/") ? resolve(cwd, argv0) : findProgram(argv0);
  try {
    if (named !== undefined && isAbsolute(named) && realpathSync(named) === realpathSync(execPath))
      return named;
  } catch {
    // The program was renamed or removed meanwhile.
  }
  if (basename(execPath) !== prog)
    log.warn(`${user} will run ${basename(execPath)}: ${prog} no longer exists`);
  return execPath;
}

/** A user with lingering has a file here (systemd-logind). */
const LINGER = "/var/lib/systemd/linger";

/** Why the user's systemd does not start with the host; undefined if it does. */
export function findLingerProblem(): string | undefined {
  if (lstatOf(join(LINGER, findUserName(callerUid())))) return undefined;
  return "your systemd starts when you log in, and ends with your last session; to start it with the host: loginctl enable-linger";
}
