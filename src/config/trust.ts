import { lstatSync, realpathSync, statSync, type Stats } from "node:fs";
import { dirname } from "node:path";

/** The caller's numeric user id. */
export const callerUid = (): number => process.getuid!();

/** Root's, or the caller's own. */
export const ownedByUs = (stats: Stats): boolean => stats.uid === 0 || stats.uid === callerUid();

const writableByOthers = (stats: Stats): boolean => (stats.mode & 0o022) !== 0;

/**
 * May a directory be relied on by its name? Everybody who could put another one in its place, anywhere on
 * the way to it, is root or the caller. A sticky directory (`/tmp`) lets nobody do that to what is ours.
 */
export function isOurDirectory(path: string): boolean {
  for (let item = path; ; item = dirname(item)) {
    const stats = lstatSync(item, { throwIfNoEntry: false });
    if (!stats?.isDirectory() || !ownedByUs(stats)) return false;
    if (writableByOthers(stats) && (item === path || (stats.mode & 0o1000) === 0)) return false;
    if (item === dirname(item)) return true;
  }
}

/**
 * Why a file must not be executed: it or its directory belongs to somebody else, or others may write it.
 * @returns the reason, or undefined when it may be trusted
 */
export function distrust(path: string): string | undefined {
  const real = realpathSync(path);
  // A link's own directory decides what the link leads to.
  for (const item of new Set([real, dirname(real), dirname(path)])) {
    const stats = statSync(item);
    if (!ownedByUs(stats)) return `${item} belongs to another user (uid ${stats.uid})`;
    if (writableByOthers(stats)) return `${item} may be written by others`;
  }
  return undefined;
}
