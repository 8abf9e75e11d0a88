/**
 * Whom a file or directory belongs to, and what follows from it. The trust model (README, "Trust") is decided here.
 *
 * *Own*: owned by the caller or root, and writable by no user but the caller (and root). Everything else is *foreign*.
 */
import { lstatSync, readFileSync, realpathSync, statSync, type Stats } from "node:fs";
import { dirname } from "node:path";
import { shellQuote } from "./shell.ts";

/** The caller's numeric user id. */
export const callerUid = (): number => process.getuid!();

/** Root's, or the caller's own. */
export const ownedByUs = (stats: Stats): boolean => stats.uid === 0 || stats.uid === callerUid();

const GROUP_WRITE = 0o020;
const OTHERS_WRITE = 0o002;
const STICKY = 0o1000;

/** Lines of passwd(5) or group(5), in fields. */
function readDatabase(path: string): string[][] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .map((line) => line.split(":"));
  } catch {
    return [];
  }
}

/**
 * Pure: is a group the private group of one user (as useradd(8) makes it: USERGROUPS_ENAB)? It has no other member, and
 * is the primary group of no other user.
 * @param passwd lines of passwd(5), in fields
 * @param group lines of group(5), in fields
 */
export function isPrivateGroup(gid: number, uid: number, passwd: string[][], group: string[][]): boolean {
  const entry = group.find((fields) => fields[2] === String(gid));
  if (!entry) return false;
  const names = passwd.filter((fields) => fields[2] === String(uid)).map((fields) => fields[0]);
  const members = (entry[3] ?? "").split(",").filter((name) => name !== "");
  if (members.some((name) => !names.includes(name))) return false;
  return !passwd.some((fields) => fields[3] === String(gid) && fields[2] !== String(uid));
}

let privateGroup: { gid: number | undefined } | undefined;

/** The caller's own private group; undefined where it has none, or that is not known. */
function callerPrivateGroup(): number | undefined {
  if (!privateGroup) {
    const gid = process.getgid!();
    // root's umask has no need of one, and its group is given to services on some systems.
    const known =
      callerUid() !== 0 &&
      isPrivateGroup(gid, callerUid(), readDatabase("/etc/passwd"), readDatabase("/etc/group"));
    privateGroup = { gid: known ? gid : undefined };
  }
  return privateGroup.gid;
}

/** May a user other than the caller and root write it? The caller's own private group is no other user. */
export function writableByOthers({ mode, gid }: Stats): boolean {
  if ((mode & OTHERS_WRITE) !== 0) return true;
  return (mode & GROUP_WRITE) !== 0 && gid !== callerPrivateGroup();
}

/** Why something is foreign, without its path: `belongs to uid 1001`; undefined for what is own. */
export function foreignReason(stats: Stats): string | undefined {
  if (!ownedByUs(stats)) return `belongs to another user (${findUserName(stats.uid)})`;
  return writableByOthers(stats) ? "is writable by other users" : undefined;
}

/** `alice`, or `uid 1001` where the user database has no such user. */
export function findUserName(uid: number): string {
  const entry = readDatabase("/etc/passwd").find((fields) => fields[2] === String(uid));
  return entry?.[0] || `uid ${uid}`;
}

/** Start of a command line that runs as another user: `sudo -u alice vm`. */
export const asUser = (uid: number, ...words: string[]): string =>
  ["sudo", ...(uid === 0 ? [] : ["-u", findUserName(uid).replace(/^uid /, "#")]), ...words]
    .map(shellQuote)
    .join(" ");

/**
 * May a directory be relied on by its name? Each user who could put another one in its place, anywhere on the way to
 * it, is root or the caller. A sticky directory (`/tmp`) keeps all others from doing that to what is the caller's.
 */
export function isOurDirectory(path: string): boolean {
  for (let item = path; ; item = dirname(item)) {
    const stats = lstatSync(item, { throwIfNoEntry: false });
    if (!stats?.isDirectory() || !ownedByUs(stats)) return false;
    if (writableByOthers(stats) && (item === path || (stats.mode & STICKY) === 0)) return false;
    if (item === dirname(item)) return true;
  }
}

/**
 * Why a file must not be executed or obeyed: it or its directory is foreign.
 * @param path a file that exists; links are followed, and their own directories looked at, too
 * @returns the reason with the path, or undefined when it is own
 */
export function distrust(path: string): string | undefined {
  const real = realpathSync(path);
  // A link's own directory decides where the link points.
  for (const item of new Set([real, dirname(real), dirname(path)])) {
    const reason = foreignReason(statSync(item));
    if (reason !== undefined) return `${item} ${reason}`;
  }
  return undefined;
}
