import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { asUser, callerUid, foreignReason, ownedByUs, findUserName } from "../lib/trust.ts";
import { shellQuote } from "../lib/shell.ts";
import { lstatOf } from "../lib/read-file.ts";
import { fileError } from "../store/files.ts";
import { HOST } from "../store/layout.ts";
import type { Context } from "./context.ts";

/** The reason why a VM is foreign. */
interface Foreign {
  path: string;
  reason: string;
  uid: number;
  /** A directory for all users, such as /tmp. */
  sticky: boolean;
}

/** Why HOSTDIR, or guest.env in it, is foreign; undefined if it is not. */
export function foreignDirectory(hostdir: string): Foreign | undefined {
  for (const path of [hostdir, join(hostdir, HOST.guestEnv)]) {
    const stats = lstatOf(path);
    const reason = stats && foreignReason(stats);
    // A symlink's own mode is meaningless; reading it is refused later.
    if (stats && reason !== undefined && !(stats.isSymbolicLink() && ownedByUs(stats)))
      return { path, reason, uid: stats.uid, sticky: (stats.mode & 0o1000) !== 0 };
  }
  return undefined;
}

/**
 * Refuses to change, run or enter a foreign VM (README, "Trust").
 * @param command what is refused, for the error message
 * @throws 73 for a foreign one; the hint says how to act as its owner
 */
export function requireOwn(context: Context, hostdir: string, command: string): void {
  const found = foreignDirectory(hostdir);
  if (!found) return requireWritable(context, hostdir, command);
  throw new VmError("cannotCreate", `cannot ${command}: ${found.path} ${found.reason}`, {
    hint: adviceFor(context, found),
  });
}

/** root's directories are trusted, but other users cannot change them. @throws 73 */
function requireWritable({ prog }: Context, hostdir: string, command: string): void {
  const stats = lstatOf(hostdir);
  if (!stats || stats.uid === callerUid()) return;
  try {
    accessSync(hostdir, constants.W_OK);
  } catch (error) {
    if (hasErrno(error, "EROFS")) throw fileError(`cannot ${command}`, error);
    throw new VmError("cannotCreate", `cannot ${command}: ${hostdir} belongs to ${findUserName(stats.uid)}`, {
      hint: `act as that user: ${asUser(0, prog)} …; to read only: ${commandLine("status")}`,
    });
  }
}

function adviceFor({ prog }: Context, { path, uid, sticky }: Foreign): string {
  if (uid !== 0 && uid !== callerUid())
    return `act as that user: ${asUser(uid, prog)} …; to read only: ${commandLine("status")}`;
  // Such as /tmp, whose mode must not change.
  if (sticky || uid !== callerUid()) return `use a directory of your own: mkdir -m 700 DIR && cd DIR`;
  return `chmod go-w ${shellQuote(path)}`;
}
