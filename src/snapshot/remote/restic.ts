import { accessSync, constants, statSync } from "node:fs";
import { hostname } from "node:os";
import { commandLine, programName } from "../../lib/command-line.ts";
import { reasonOf, VmError } from "../../lib/errors.ts";
import {
  parseRepositoryLock,
  saysDataLost,
  saysNoRepository,
  saysRepositoryLocked,
  saysWrongPassword,
  type RepositoryLock,
} from "../../lib/program-messages.ts";
import { isZombie } from "../../process/descendants.ts";
import {
  exec,
  processFailure,
  requireProgram,
  start,
  type Child,
  type Finished,
  type StartOptions,
} from "../../process/exec.ts";
import { quoteLine } from "../../lib/text.ts";
import type { Context } from "../../vm/context.ts";
import { openUser } from "../../vm/find.ts";
import { isUnattended } from "../../process/unattended.ts";

/** As long as an init that reaps from time to time may take; some never do. */
const REAPED_MS = 10_000;
const POLL_MS = 100;
const MAX_STALE_LOCKS = 20;

/** A restic repository (https://restic.readthedocs.io), used through the program restic. */
export interface Repository {
  /**
   * Runs a restic command.
   * @param what start of the error message: `cannot list snapshots`
   * @throws 66 without a repository, 75 if another restic has locked it, 78 for a wrong password, else 74
   */
  run(words: readonly string[], options: RunOptions): Promise<Finished>;
  /**
   * Tries again what was refused for a stale lock, left by a restic that was killed, after removing it.
   * @param refusalOf what restic has said, if it failed
   */
  pastStaleLocks<T>(attempt: () => Promise<T>, refusalOf: (result: T) => string): Promise<T>;
  /** Starts a restic command that runs until it is ended. */
  start(words: readonly string[], options: StartOptions): Child;
  /** The environment that it runs in. */
  readonly env: Record<string, string | undefined>;
  /** The error for one that failed. @param what as above */
  failure(what: string, result: Finished): VmError;
  /** The error if data is missing or damaged, by what restic has logged. */
  damage(what: string, logged: string): VmError | undefined;
}

export interface RunOptions {
  what: string;
  cwd?: string;
  /** Exit statuses besides 0 that are no errors. */
  good?: readonly number[];
}

const hint = (): string =>
  `set SNAPSHOT_REPO and SNAPSHOT_PASSWORD_FILE in ~/.config/${programName()}.conf or /etc/${programName()}.conf; settings in guest.env are ignored`;

/**
 * Opens the repository of the host's and the user's settings. Its location and password are passed in the environment and
 * in a file, as other users can read arguments.
 * @throws 69 without restic, 78 for missing or invalid settings
 */
export async function openRepository(context: Context): Promise<Repository> {
  const { settings } = await openUser(context);
  const place = settings.SNAPSHOT_REPO || (context.env.RESTIC_REPOSITORY ?? "");
  if (place === "") throw new VmError("config", "no repository is set (SNAPSHOT_REPO)", { hint: hint() });
  const passwordFile = settings.SNAPSHOT_PASSWORD_FILE || (context.env.RESTIC_PASSWORD_FILE ?? "");
  checkPasswordFile(passwordFile);
  requireProgram("restic");
  const env = {
    RESTIC_REPOSITORY: place,
    RESTIC_REPOSITORY_FILE: undefined,
    RESTIC_PASSWORD_FILE: passwordFile,
    RESTIC_PASSWORD: undefined,
    RESTIC_PASSWORD_COMMAND: undefined,
    // restic parses and prints local times, which are ambiguous when the clock goes back.
    TZ: "UTC",
    // Progress is not shown: one line in 10 s.
    RESTIC_PROGRESS_FPS: "0.1",
  };
  return repositoryAt(place, env);
}

/** That of the program which has started this one with its environment. */
export const repositoryOfEnvironment = (): Repository =>
  repositoryAt(process.env.RESTIC_REPOSITORY ?? "", {});

function repositoryAt(place: string, env: Repository["env"]): Repository {
  const call = (words: readonly string[], cwd = "/"): Promise<Finished> =>
    exec(["restic", ...words], { env, cwd, low: isUnattended(), anyStatus: true });
  const pastStaleLocks: Repository["pastStaleLocks"] = async (attempt, refusalOf) => {
    for (const holders = new Set<string | undefined>(); ;) {
      const result = await attempt();
      const refusal = refusalOf(result);
      if (!saysRepositoryLocked(refusal)) return result;
      const lock = parseRepositoryLock(refusal);
      // If it is still there, its restic runs.
      if (holders.has(lock.holder) || holders.size === MAX_STALE_LOCKS) return result;
      holders.add(lock.holder);
      await waitUntilReaped(lock);
      await call(["unlock"]);
    }
  };
  return {
    run: async (words, { what, cwd, good = [] }) => {
      const result = await pastStaleLocks(
        () => call(words, cwd),
        ({ stderr }) => stderr,
      );
      if (result.status === 0 || good.includes(result.status ?? -1)) return result;
      throw explain(what, result, place);
    },
    pastStaleLocks,
    start: (words, options) => start(["restic", ...words], { ...options, env }),
    env,
    failure: (what, result) => explain(what, result, place),
    damage: (what, logged) => explainDamage(what, logged, place),
  };
}

/** `restic unlock` takes a zombie for a restic that runs: one that was killed with its parent, until init reaps it. */
async function waitUntilReaped({ pid, host }: RepositoryLock): Promise<void> {
  if (pid === undefined || host !== hostname()) return;
  for (const deadline = Date.now() + REAPED_MS; isZombie(pid) && Date.now() < deadline;)
    await Bun.sleep(POLL_MS);
}

function checkPasswordFile(path: string): void {
  if (path === "")
    throw new VmError("config", "no file with the repository's password is set (SNAPSHOT_PASSWORD_FILE)", {
      hint: hint(),
    });
  try {
    accessSync(path, constants.R_OK);
  } catch (error) {
    throw new VmError("config", `cannot read the repository's password: ${reasonOf(error)}: ${path}`);
  }
  if ((statSync(path).mode & 0o007) !== 0)
    throw new VmError("config", `${path} is readable by all users of this host`, {
      hint: `chmod 600 ${path}`,
    });
}

function explain(what: string, result: Finished, place: string): VmError {
  if (saysNoRepository(result.stderr))
    return new VmError("noInput", `${what}: there is no repository at ${hideCredentials(place)}`, {
      hint: "check SNAPSHOT_REPO: mount the filesystem of the repository, or correct its location; to create a repository: RESTIC_REPOSITORY=… RESTIC_PASSWORD_FILE=… restic init",
    });
  if (saysWrongPassword(result.stderr))
    return new VmError("config", `${what}: wrong password for ${hideCredentials(place)}`, {
      hint: "check SNAPSHOT_PASSWORD_FILE",
    });
  if (saysRepositoryLocked(result.stderr)) {
    const { holder = "another restic", since } = parseRepositoryLock(result.stderr);
    return new VmError(
      "busy",
      `${what}: the repository is locked by ${quoteLine(holder)}${since === undefined ? "" : `, since ${since} UTC`}`,
      { hint: "run the command again later; if that restic no longer runs: restic unlock --remove-all" },
    );
  }
  return processFailure(what, { ...result, argv: ["restic"], stderr: hideIn(result.stderr, place) });
}

export function explainDamage(what: string, logged: string, place: string): VmError | undefined {
  const line = logged.split("\n").findLast(saysDataLost);
  return line === undefined
    ? undefined
    : new VmError(
        "io",
        `${what}: data of the repository ${hideCredentials(place)} is missing or damaged: ${quoteLine(hideIn(line, place))}`,
        { hint: `check it: ${commandLine("verify", "--remote", "--deep")}` },
      );
}

/** `rest:http://user:word@host/` → `rest:http://user:***@host/` */
export const hideCredentials = (place: string): string => place.replace(/(:\/\/[^/:@]*):[^@]*@/, "$1:***@");

const hideIn = (text: string, place: string): string => text.replaceAll(place, hideCredentials(place));
