import { accessSync, constants, statSync } from "node:fs";
import { programName } from "../../lib/command-line.ts";
import { reasonOf, VmError } from "../../lib/errors.ts";
import { saysNoRepository, saysRepositoryLocked, saysWrongPassword } from "../../lib/program-messages.ts";
import { exec, processFailure, requireProgram, type Finished } from "../../process/exec.ts";
import { gentle } from "../../process/gentle.ts";
import type { Context } from "../../vm/context.ts";
import { openUser } from "../../vm/find.ts";
import { isUnattended } from "../../process/unattended.ts";

/** A restic repository (https://restic.readthedocs.io), by way of the program restic. */
export interface Repository {
  /**
   * Runs one of restic's commands.
   * @param what begins the error: `cannot list snapshots`
   * @throws 66 without a repository, 75 while another restic has it to itself, 78 for a wrong password, else 74
   */
  run(words: readonly string[], options: RunOptions): Promise<Finished>;
}

export interface RunOptions {
  what: string;
  cwd?: string;
  /** Statuses besides 0 that are no error. */
  good?: readonly number[];
}

const hint = (): string =>
  `set SNAPSHOT_REPO and SNAPSHOT_PASSWORD_FILE in ~/.config/${programName()}.conf or /etc/${programName()}.conf; a guest.env does not count`;

/**
 * The repository that the host's and the user's settings name. Where it is, and its password, stand in no argument:
 * restic takes them from its environment and a file.
 * @throws 69 without restic, 78 where nothing or something wrong is set
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
    // It takes and prints local times: an hour that comes twice is ambiguous, and it may lack zone data.
    TZ: "UTC",
    // A line of progress each time it writes one; nobody reads it.
    RESTIC_PROGRESS_FPS: "0.1",
  };
  const call = async (words: readonly string[], cwd = "/"): Promise<Finished> => {
    const argv = ["restic", ...words];
    return exec(isUnattended() ? gentle(argv) : argv, { env, cwd, anyStatus: true });
  };
  return {
    run: async (words, { what, cwd, good = [] }) => {
      let result = await call(words, cwd);
      if (saysRepositoryLocked(result.stderr)) {
        // One that was killed leaves its lock; restic removes no other.
        await call(["unlock"]);
        result = await call(words, cwd);
      }
      if (result.status === 0 || good.includes(result.status ?? -1)) return result;
      throw explain(what, result, place);
    },
  };
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
    throw new VmError("config", `everybody on this host may read ${path}`, { hint: `chmod 600 ${path}` });
}

function explain(what: string, result: Finished, place: string): VmError {
  if (saysNoRepository(result.stderr))
    return new VmError("noInput", `${what}: there is no repository at ${hideCredentials(place)}`, {
      hint: "check SNAPSHOT_REPO: mount the file system that holds the repository, or name the place it was moved to; to make a first one: RESTIC_REPOSITORY=… RESTIC_PASSWORD_FILE=… restic init",
    });
  if (saysWrongPassword(result.stderr))
    return new VmError("config", `${what}: the password does not open ${hideCredentials(place)}`, {
      hint: "see SNAPSHOT_PASSWORD_FILE",
    });
  if (saysRepositoryLocked(result.stderr))
    return new VmError("busy", `${what}: another restic is at work on the repository`, {
      hint: "try again later; restic list locks tells who it is",
    });
  return processFailure(what, { ...result, argv: ["restic"], stderr: hideIn(result.stderr, place) });
}

/** `rest:http://user:word@host/` → `rest:http://user:***@host/` */
export const hideCredentials = (place: string): string => place.replace(/(:\/\/[^/:@]*):[^@]*@/, "$1:***@");

const hideIn = (text: string, place: string): string => text.replaceAll(place, hideCredentials(place));
