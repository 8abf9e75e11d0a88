/**
 * Files of a 9p share as qemu keeps them under `security_model=mapped-file`: each is a plain file or directory, and
 * `.virtfs_metadata/NAME` beside it holds its owner and mode in the guest; a symlink is a file that holds its target
 * (qemu, hw/9pfs/9p-local.c). This module sets these modes, and creates symlinks that stay inside the share.
 */
import {
  chmodSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  type Dirent,
} from "node:fs";
import { join } from "node:path";
import { hasErrno } from "../lib/errors.ts";
import { FIRST_UID } from "../qemu/jail.ts";
import { remove } from "../store/remove.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { REPLACEMENT } from "../lib/text.ts";
import { writeNew } from "../store/files.ts";

const METADATA = ".virtfs_metadata";
/** The same for the share's own directory. */
const METADATA_OF_ROOT = ".virtfs_metadata_root";
const MAX_METADATA_BYTES = 4096;
/** PATH_MAX of Linux: the maximum length of a symlink's target. */
const MAX_TARGET_BYTES = 4095;
/** Maximum depth: files below are left as they are. */
const MAX_DEPTH = 64;

const S_IFMT = 0o170000;
const S_IFLNK = 0o120000;

/** Readable entries of a directory with UTF-8 names; others are left as they are. */
function readEntries(dir: string): Dirent[] {
  try {
    return readdirSync(dir, { withFileTypes: true }).filter(({ name }) => !name.includes(REPLACEMENT));
  } catch (error) {
    if (hasErrno(error, "EACCES", "ENOENT", "ENAMETOOLONG")) return [];
    throw error;
  }
}

/** Calls `visit` for each directory of a tree, parents first. No link is followed. */
function walk(top: string, visit: (dir: string, depth: number, entries: Dirent[]) => void): void {
  const waiting = [{ dir: top, depth: 0 }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { dir, depth } = next;
    const entries = readEntries(dir);
    for (const entry of entries)
      if (entry.isDirectory() && entry.name !== METADATA && depth < MAX_DEPTH)
        waiting.push({ dir: join(dir, entry.name), depth: depth + 1 });
    takeEntries(dir, entries);
    visit(dir, depth, entries);
  }
}

/** What a qemu of its own user has created for the guest becomes root's. */
function takeEntries(dir: string, entries: readonly Dirent[]): void {
  if (process.getuid!() !== 0) return;
  for (const { name } of entries) {
    const path = join(dir, name);
    if ((lstatOf(path)?.uid ?? 0) >= FIRST_UID) lchownSync(path, 0, 0);
  }
}

/** What the guest has created in a share becomes this program's user's. Nothing may write to the share meanwhile. */
export const takeSharedFiles = (share: string): void => walk(share, () => {});

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
 * Pure: a symlink's target as it is made on the host, relative. `..` is accepted only at the beginning, and no more often
 * than the symlink's directory has parents in the share: then it stays inside, even if further names are symlinks.
 * @param depth of the symlink's directory below the share's
 * @param mounted mount point of the share in the guest
 * @returns undefined for a target outside, or one that cannot be checked
 */
export function hostTarget(target: string, depth: number, mounted: string): string | undefined {
  const inside = target === mounted || target.startsWith(`${mounted}/`);
  if (target === "" || /[\0\ufffd]/.test(target) || (target.startsWith("/") && !inside)) return undefined;
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
 * Gives files the modes that they have in the guest (without setuid, setgid and sticky bits), makes the symlinks that point
 * inside the share, and removes the metadata. Nothing may write to the share meanwhile.
 * @param umask bits that are cleared in the modes
 * @param mounted mount point of the share in the guest
 * @param kept names in the top directory that keep their modes
 * @returns symlinks that point outside, as paths below the share: they stay files that hold their target
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
 * Turns symlinks back into mapped files, before a guest gets the share: a real symlink that the guest moves could point
 * outside.
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
