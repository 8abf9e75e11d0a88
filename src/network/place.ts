import { lstatSync, mkdirSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { callerUid, foreignReason } from "../lib/trust.ts";
import { lstatOf } from "../lib/read-file.ts";

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
  return join(runtime ?? join(tmpdir, `vm-run-${uid}`), runtime ? "vm/networks" : "networks");
}

/** A pipe that the qemus of a network's members hold open: its end is the end of the network. */
export const LIFELINE = "members";
export const lifelinePath = (place: RuntimePlace, name: string): string =>
  join(networksDirectory(place), name, LIFELINE);

function isOwnPlace(path: string): boolean {
  const stats = lstatOf(path);
  return stats?.isDirectory() === true && stats.uid === callerUid();
}

/** Creates a network's directory, which only this user can enter. @throws 74 if another user could */
export function makeNetworkDirectory(place: RuntimePlace, name: string): string {
  const networks = networksDirectory(place);
  const directory = join(networks, name);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  for (const path of [networks, directory]) {
    const stats = lstatSync(path);
    const foreign = stats.isDirectory() ? foreignReason(stats) : "is not a directory";
    if (foreign !== undefined || (stats.mode & 0o077) !== 0)
      throw new VmError("io", `refusing ${path}: it ${foreign ?? "can be entered by other users"}`, {
        hint: `move it out of the way: mv ${path} ${path}.old`,
      });
  }
  return directory;
}
