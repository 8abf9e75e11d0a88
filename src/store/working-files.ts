import { lstatSync, readlinkSync, renameSync, rmdirSync, unlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { ownedByUs } from "../lib/trust.ts";
import { shellQuote } from "../lib/shell.ts";
import type { Mark } from "./mark-types.ts";
import { remove } from "./remove.ts";
import { lstatOf } from "../lib/read-file.ts";
import { afterCommit, listDirectory, replaceSymlink, syncDirectory } from "./files.ts";
import { HOST, isDiskName, READY, REMOVING, WORK } from "./layout.ts";
import { readMark, readMarkFile, updateMark } from "./mark.ts";
import type { Work } from "./workdir.ts";
import { isDirectoryName, isStagedName, isWorkDirectoryName, isWorkingFile } from "./working-names.ts";
import { randomBytes, sha256 } from "../lib/crypto.ts";

/** Working directories of one VM share a prefix, so that what a crash left can be found. */
export const workPrefix = (hostdir: string): string => `vm-${sha256(hostdir).slice(0, 8)}-`;

export const UNFINISHED = ".partial";
export const DISCARDED = ".discarded";

/** Removes what new working files took the place of. @returns whether there was anything to do */
export function finishReplacing(hostdir: string, workdir: string, mark = readMark(workdir)): boolean {
  const replaces = mark?.replaces;
  if (!replaces) return false;
  if (replaces === hostdir) removeInplace(hostdir, true);
  else if ((isWorkDirectory(replaces) && belongsTo(replaces, hostdir)) || isRest(replaces, hostdir))
    discard(replaces);
  updateMark(workdir, { replaces: undefined });
  return true;
}

/** By its name, or (of the earlier program, adopted) by its mark. */
const isWorkDirectory = (dir: string): boolean =>
  isWorkDirectoryName(basename(dir)) || readMark(dir) !== undefined;

/** A working directory of this VM of which nothing but a few files is left, not even the link back. */
function isRest(dir: string, hostdir: string): boolean {
  const name = basename(dir);
  const stats = lstatOf(dir);
  if (!isWorkDirectoryName(name) || !name.startsWith(workPrefix(hostdir))) return false;
  const left = listDirectory(dir);
  return (
    stats?.isDirectory() === true &&
    ownedByUs(stats) &&
    !left.includes(WORK.hostLink) &&
    !left.some(isDiskName)
  );
}

/** Removes a working directory so that a crash halfway leaves a name which shows that. */
function discard(dir: string): void {
  removeDirectory(setAside(dir));
}

/** Removes a working directory, and the link that says whose it is at the very end: the next command needs it. */
export function removeDirectory(dir: string): void {
  const link = join(dir, WORK.hostLink);
  for (const name of listDirectory(dir)) if (name !== WORK.hostLink) remove(join(dir, name));
  remove(link);
  rmdirSync(dir);
}

/** The name nobody else can have taken before: `/tmp` is open to everybody. */
function setAside(dir: string): string {
  const aside = `${dir}.${randomBytes(4).toString("hex")}${DISCARDED}`;
  renameSync(dir, aside);
  return aside;
}

export function belongsTo(dir: string, hostdir: string): boolean {
  const stats = lstatOf(dir);
  const link = join(dir, WORK.hostLink);
  return (
    stats !== undefined &&
    stats.isDirectory() &&
    ownedByUs(stats) &&
    lstatOf(link)?.isSymbolicLink() === true &&
    readlinkSync(link) === hostdir
  );
}

/**
 * Moves complete new working files into HOSTDIR; may be interrupted and repeated.
 * @throws 74, with nothing done, when the redo log is not one that this program has written
 */
export function rollForward(hostdir: string): void {
  const ready = join(hostdir, READY);
  requireRedoLog(ready);
  const mark = readMark(ready);
  if (mark) {
    const staged = listDirectory(ready).filter((name) => name !== WORK.mark);
    // Which of them were moved before is not known with a damaged mark: nothing is removed then.
    const wanted = new Set(mark.files ?? listOwned(hostdir));
    for (const name of listOwned(hostdir)) if (!wanted.has(name)) remove(join(hostdir, name));
    for (const name of staged) {
      if (lstatSync(join(ready, name)).isDirectory()) remove(join(hostdir, name));
      renameSync(join(ready, name), join(hostdir, name));
    }
    replaceSymlink(join(hostdir, WORK.hostLink), ".");
    replaceSymlink(join(hostdir, HOST.workLink), ".");
    syncDirectory(hostdir);
    renameSync(join(ready, WORK.mark), join(hostdir, WORK.mark));
  }
  remove(ready);
  finishReplacing(hostdir, hostdir);
}

/** Working files in HOSTDIR that its mark names as the program's. @param mark that of HOSTDIR, or its redo log */
export function listOwned(hostdir: string, mark: Mark | undefined = readMark(hostdir)): string[] {
  return mark ? listDirectory(hostdir).filter((name) => isWorkingFile(name) && isOwned(mark, name)) : [];
}

/** Is a working file in HOSTDIR the program's? Marks of earlier versions do not tell: all are. */
export const isOwned = ({ owns }: Mark, name: string): boolean => owns?.includes(name) ?? true;

/** Names in the redo log are those that the program uses, and lead nowhere. @throws 74 */
function requireRedoLog(ready: string): void {
  const stats = lstatOf(ready);
  const refuse = (path: string, reason: string): VmError =>
    new VmError("io", `cannot finish an interrupted restore: ${path} ${reason}`, {
      hint: `no file was moved; if this program did not make it: rm -r ${shellQuote(ready)}`,
    });
  if (!stats?.isDirectory() || !ownedByUs(stats)) throw refuse(ready, "is not a directory of this user");
  for (const name of listDirectory(ready)) {
    const path = join(ready, name);
    const item = lstatSync(path);
    if (!isStagedName(name)) throw refuse(path, "is none of the program's working files");
    if (!(isDirectoryName(name) ? item.isDirectory() : item.isFile()))
      throw refuse(path, isDirectoryName(name) ? "is not a directory" : "is not a regular file");
    if (!ownedByUs(item)) throw refuse(path, "belongs to another user");
  }
  const foreign = readMark(ready)?.files?.find((name) => !isStagedName(name));
  if (foreign !== undefined)
    throw refuse(
      join(ready, WORK.mark),
      `names ${JSON.stringify(foreign)}, which is none of the program's working files`,
    );
}

/** Our mark turns into the redo log: that takes no room, and destroying is what makes some. */
const beginRemoving = (hostdir: string): void =>
  renameSync(join(hostdir, WORK.mark), join(hostdir, REMOVING));

/**
 * Removes working files kept in HOSTDIR. `keepLink`: `.work` points elsewhere already.
 * @throws 74, with nothing done, when the redo log is no regular file
 */
export function removeInplace(hostdir: string, keepLink: boolean): void {
  const redo = join(hostdir, REMOVING);
  const stats = lstatOf(redo);
  if (stats && (!stats.isFile() || !ownedByUs(stats)))
    throw new VmError("io", `cannot remove working files: ${redo} is not a regular file of this user`, {
      hint: `no file was removed; if this program did not make it: rm -r ${shellQuote(redo)}`,
    });
  if (!stats) {
    if (!lstatOf(join(hostdir, WORK.mark))) return;
    beginRemoving(hostdir);
  }
  syncDirectory(hostdir);
  const link = join(hostdir, HOST.workLink);
  if (!keepLink && lstatOf(link)?.isSymbolicLink() && readlinkSync(link) === ".") unlinkSync(link);
  for (const name of listOwned(hostdir, readMarkFile(redo, false))) remove(join(hostdir, name));
  remove(join(hostdir, WORK.hostLink));
  remove(join(hostdir, WORK.mark));
  remove(redo);
  syncDirectory(hostdir);
}

/** WORKDIR, or what is left of it. */
export function directoryOf(work: Work): string | undefined {
  if (work.state === "present") return work.dir;
  return work.state === "gone" && work.remains ? work.target : undefined;
}

/**
 * Removes a VM's working files.
 * @throws a system error when nothing has happened, VmError 74 when they are gone but not all is cleared away
 */
export function removeWork(hostdir: string, work: Work): void {
  if (work.state === "none") return;
  if (work.state === "present" && work.inplace) {
    beginRemoving(hostdir);
    return afterCommit("the working files are being removed", () => removeInplace(hostdir, false));
  }
  const dir = directoryOf(work);
  const aside = dir === undefined ? undefined : setAside(dir);
  afterCommit("the working files are gone", () => {
    unlinkSync(join(hostdir, HOST.workLink));
    try {
      syncDirectory(hostdir);
    } finally {
      if (aside) removeDirectory(aside);
    }
  });
}
