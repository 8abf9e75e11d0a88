import { chmodSync, lstatSync, readdirSync, renameSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { hasErrno } from "../lib/errors.ts";
import { lstatOf } from "../lib/read-file.ts";
import { REPLACEMENT } from "../lib/text.ts";
import { PARTIAL } from "./layout.ts";

/**
 * Removes a file or a tree, if it exists. Subdirectories are first moved to the top of the tree, so that paths stay
 * short however deep a guest or a job has nested them, and the work linear.
 * @throws a system error
 */
export function remove(path: string): void {
  const stats = lstatOf(path);
  if (!stats) return;
  if (!stats.isDirectory()) return rmSync(path, { force: true });
  const waiting = [path];
  const emptied: string[] = [];
  for (let count = 0, dir = waiting.pop(); dir !== undefined; dir = waiting.pop()) {
    emptied.push(dir);
    for (const { path: item, isDirectory } of readOwnDirectory(dir)) {
      if (!isDirectory) {
        rmSync(item, { force: true });
        continue;
      }
      let moved = item.toString();
      if (dir !== path || typeof item !== "string") {
        do moved = join(path, `${PARTIAL}${count++}`);
        while (lstatOf(moved));
        // Moving a directory changes its `..`, which needs write permission.
        chmodSync(item, 0o700);
        renameSync(item, moved);
      }
      waiting.push(moved);
    }
  }
  for (const dir of emptied.toReversed()) rmdirSync(dir);
}

interface Entry {
  /** Bytes if the name is not UTF-8: a string would name another file. */
  path: string | Buffer;
  isDirectory: boolean;
}

/** Lists a directory to remove, whatever its mode. */
function readOwnDirectory(path: string): Entry[] {
  try {
    const entries = listEntries(path);
    if ((lstatSync(path).mode & 0o700) === 0o700) return entries;
  } catch (error) {
    if (!hasErrno(error, "EACCES")) throw error;
  }
  chmodSync(path, 0o700);
  return listEntries(path);
}

function listEntries(directory: string): Entry[] {
  const entries = readdirSync(directory, { withFileTypes: true });
  if (!entries.some(({ name }) => name.includes(REPLACEMENT)))
    return entries.map((entry) => ({ path: join(directory, entry.name), isDirectory: entry.isDirectory() }));
  // Bun does not support file types together with byte names.
  return readdirSync(directory, { encoding: "buffer" }).map((name) => {
    const path = Buffer.concat([Buffer.from(`${directory}/`), name]);
    return { path, isDirectory: lstatSync(path).isDirectory() };
  });
}
