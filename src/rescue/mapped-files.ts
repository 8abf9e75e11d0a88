/**
 * Files of a 9p share as qemu keeps them under `security_model=mapped-file`: each is a plain file or directory, and
 * `.virtfs_metadata/NAME` beside it says what it is to the guest; a symbolic link is a file that holds its target
 * (qemu, hw/9pfs/9p-local.c). Real modes and links are given back here as far as they stay within the share.
 */
import { chmodSync, mkdirSync, readdirSync, readlinkSync, rmSync, symlinkSync, type Dirent } from "node:fs";
import { join } from "node:path";
import { hasErrno } from "../lib/errors.ts";
import { lstatOf, readSmall, remove, writeNew } from "../store/files.ts";

const METADATA = ".virtfs_metadata";
/** The same for the share's own directory. */
const METADATA_OF_ROOT = ".virtfs_metadata_root";
const MAX_METADATA_BYTES = 4096;
/** PATH_MAX of Linux: no link's target is longer. */
const MAX_TARGET_BYTES = 4095;
/** What is nested deeper stays as it is: paths have an end. */
const MAX_DEPTH = 64;

const S_IFMT = 0o170000;
const S_IFLNK = 0o120000;

/** Calls `visit` for each directory of a tree, parents first. No link is followed. */
function walk(top: string, visit: (dir: string, depth: number, entries: Dirent[]) => void): void {
  const waiting = [{ dir: top, depth: 0 }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { dir, depth } = next;
    // A name that is no UTF-8 has another one here: what bears it stays as it is.
    const entries = readdirSync(dir, { withFileTypes: true }).filter(({ name }) => !name.includes("\ufffd"));
    for (const entry of entries)
      if (entry.isDirectory() && entry.name !== METADATA && depth < MAX_DEPTH)
        waiting.push({ dir: join(dir, entry.name), depth: depth + 1 });
    visit(dir, depth, entries);
  }
}

/** `virtfs.mode=33261` of a file's metadata; undefined where it has none. */
function readMode(dir: string, name: string): number | undefined {
  try {
    const text = readSmall(join(dir, METADATA, name), MAX_METADATA_BYTES);
    const mode = /^virtfs\.mode=(\d{1,7})$/m.exec(text ?? "")?.[1];
    return mode === undefined ? undefined : Number(mode);
  } catch {
    // No regular file, or a name that is too long for its path: nothing that qemu has written.
    return undefined;
  }
}

/**
 * Pure: a link's target as it is made on the host, relative. Only leading `..` are taken, no more than the link's
 * directory has parents in the share: whatever the names behind them are, they cannot lead out of it.
 * @param depth of the link's directory below the share's
 * @param mounted where the guest has the share
 * @returns undefined where it leads out
 */
export function hostTarget(target: string, depth: number, mounted: string): string | undefined {
  const inside = target === mounted || target.startsWith(`${mounted}/`);
  if (target === "" || target.includes("\0") || (target.startsWith("/") && !inside)) return undefined;
  const words = (inside ? target.slice(mounted.length) : target)
    .split("/")
    .filter((word) => word !== "" && word !== ".");
  const up = words.findIndex((word) => word !== "..");
  const count = up === -1 ? words.length : up;
  if (words.includes("..", count) || count > (inside ? 0 : depth)) return undefined;
  const path = [...Array<string>(inside ? depth : 0).fill(".."), ...words].join("/");
  return path === "" ? "." : path;
}

/**
 * Gives files the modes that they have for the guest (no setuid, setgid and sticky bits) and makes its links, where they
 * stay within the share. Nothing may write to the share meanwhile.
 * @param umask taken off the modes
 * @param mounted where the guest had the share
 * @param kept names in the share's own directory that keep their modes
 * @returns links that lead out, as paths below the share: they remain files that hold their target
 */
export function restoreMappedFiles(
  share: string,
  umask: number,
  mounted: string,
  kept: readonly string[] = [],
): string[] {
  const outside: string[] = [];
  walk(share, (dir, depth, entries) => {
    for (const entry of entries) {
      const path = join(dir, entry.name);
      if (entry.name === METADATA || (!entry.isFile() && !entry.isDirectory())) continue;
      const mode = readMode(dir, entry.name);
      if (mode === undefined) continue;
      if (entry.isFile() && (mode & S_IFMT) === S_IFLNK) {
        if (!makeLink(path, depth, mounted)) outside.push(path.slice(share.length + 1));
      } else if (depth > 0 || !kept.includes(entry.name))
        chmodSync(path, (mode & 0o777 & ~umask) | (entry.isDirectory() ? 0o700 : 0o600));
    }
    remove(join(dir, METADATA));
  });
  remove(join(share, METADATA_OF_ROOT));
  return outside;
}

function makeLink(path: string, depth: number, mounted: string): boolean {
  if ((lstatOf(path)?.size ?? 0) > MAX_TARGET_BYTES) return false;
  const target = hostTarget(readSmall(path) ?? "", depth, mounted);
  if (target === undefined) return false;
  rmSync(path);
  symlinkSync(target, path);
  return true;
}

/**
 * Turns links into what the guest sees as such, before it gets the share: moved by the guest, a real one could lead out.
 */
export function mapLinks(share: string): void {
  walk(share, (dir, _depth, entries) => {
    for (const { name } of entries.filter((entry) => entry.isSymbolicLink())) {
      const target = readlinkSync(join(dir, name));
      rmSync(join(dir, name));
      writeNew(join(dir, name), target);
      try {
        mkdirSync(join(dir, METADATA), { mode: 0o700 });
      } catch (error) {
        if (!hasErrno(error, "EEXIST")) throw error;
      }
      rmSync(join(dir, METADATA, name), { force: true });
      writeNew(
        join(dir, METADATA, name),
        `virtfs.uid=0\nvirtfs.gid=0\nvirtfs.mode=${S_IFLNK | 0o777}\nvirtfs.rdev=0\n`,
      );
    }
  });
}
