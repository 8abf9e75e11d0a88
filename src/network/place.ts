import { lstatSync, mkdirSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { moveAside } from "../lib/shell.ts";
import { callerUid, foreignReason, isOurDirectory } from "../lib/trust.ts";

/** What decides on the directory of files that end with the last process. */
export interface RuntimePlace {
  env: Record<string, string | undefined>;
  tmpdir: string;
}

/**
 * Directory of the running networks of this user: below XDG_RUNTIME_DIR (XDG Base Directory Specification), or
 * /run/user/UID, which is the same one for a process without that variable, or TMPDIR.
 */
export function networksDirectory({ env, tmpdir }: RuntimePlace): string {
  const uid = callerUid();
  const places = [env.XDG_RUNTIME_DIR ?? "", `/run/user/${uid}`];
  const runtime = places.find((path) => isAbsolute(path) && isOwnPlace(path));
  if (runtime !== undefined) return join(realPath(runtime) ?? runtime, "vm/networks");
  return join(realPath(tmpdir) ?? tmpdir, `vm-run-${uid}`, "networks");
}

/** A pipe that the qemus of a network's members hold open: its end is the end of the network. */
export const LIFELINE = "members";
export const lifelinePath = (place: RuntimePlace, name: string): string =>
  join(networksDirectory(place), name, LIFELINE);

function isOwnPlace(path: string): boolean {
  const stats = lstatOf(path);
  return stats?.isDirectory() === true && stats.uid === callerUid();
}

/**
 * Creates a network's directory, which only this user can enter, as the two above it: another user who owns one of these
 * could put his own in place of what is below.
 * @throws 74 if another user could enter or replace one
 */
export function makeNetworkDirectory(place: RuntimePlace, name: string): string {
  const networks = networksDirectory(place);
  const directory = join(networks, name);
  for (const path of [dirname(networks), networks, directory]) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const stats = lstatSync(path);
    const foreign = stats.isDirectory() ? foreignReason(stats) : "is not a directory";
    const reason =
      foreign ??
      ((stats.mode & 0o077) !== 0 ? "can be entered by other users" : undefined) ??
      (isOurDirectory(path) ? undefined : "can be replaced by other users");
    if (reason !== undefined)
      throw new VmError("io", `refusing ${path}: it ${reason}`, {
        hint: `${moveAside(path)}; or set XDG_RUNTIME_DIR to a directory that only you can write`,
      });
  }
  return directory;
}
