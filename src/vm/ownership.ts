import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { asUser, callerUid, foreignReason, ownedByUs, findUserName } from "../lib/trust.ts";
import { shellQuote } from "../lib/shell.ts";
import { lstatOf } from "../lib/read-file.ts";
import { HOST } from "../store/layout.ts";
import type { Context } from "./context.ts";

/** What makes a VM foreign. */
interface Foreign {
  path: string;
  reason: string;
  uid: number;
  /** A directory for all users, as /tmp. */
  sticky: boolean;
}

/** Why HOSTDIR, or the settings in it, are foreign; undefined when they are own. */
export function foreignDirectory(hostdir: string): Foreign | undefined {
  for (const path of [hostdir, join(hostdir, HOST.guestEnv)]) {
    const stats = lstatOf(path);
    const reason = stats && foreignReason(stats);
    // A link's own mode says nothing; reading it is refused later.
    if (stats && reason !== undefined && !(stats.isSymbolicLink() && ownedByUs(stats)))
      return { path, reason, uid: stats.uid, sticky: (stats.mode & 0o1000) !== 0 };
  }
  return undefined;
}

/**
 * Lets only an own VM be changed, run or entered (README, "Trust").
 * @param command what is refused, for the error message
 * @throws 73 for a foreign one, with how to act as the user whose it is
 */
export function requireOwn(context: Context, hostdir: string, command: string): void {
  const found = foreignDirectory(hostdir);
  if (!found) return requireWritable(context, hostdir, command);
  throw new VmError("cannotCreate", `cannot ${command}: ${found.path} ${found.reason}`, {
    hint: adviceFor(context, found),
  });
}

/** root's directories are own, and yet not for others to change. @throws 73 */
function requireWritable({ prog }: Context, hostdir: string, command: string): void {
  const stats = lstatOf(hostdir);
  if (!stats || stats.uid === callerUid()) return;
  try {
    accessSync(hostdir, constants.W_OK);
  } catch {
    throw new VmError("cannotCreate", `cannot ${command}: ${hostdir} belongs to ${findUserName(stats.uid)}`, {
      hint: `act as that user: sudo ${prog} …; to look: ${commandLine("status")}`,
    });
  }
}

function adviceFor({ prog }: Context, { path, uid, sticky }: Foreign): string {
  if (uid !== 0 && uid !== callerUid())
    return `act as that user: ${asUser(uid, prog)} …; to look: ${prog} status, snapshots, verify`;
  // /tmp, say: it is meant to be so.
  if (sticky || uid !== callerUid()) return `use a directory of your own: mkdir -m 700 DIR && cd DIR`;
  return `chmod go-w ${shellQuote(path)}`;
}
