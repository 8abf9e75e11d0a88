import { lstatSync, readlinkSync, renameSync, rmdirSync, unlinkSync, type Stats } from "node:fs";
import { basename, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { callerUid, ownedByUs } from "../lib/trust.ts";
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
/** See store/temporary.ts. */
export const TEMPORARY = ".temporary";

/** Records that new working files are linked, and removes what they took the place of. @returns whether there was anything to do */
export function finishReplacing(hostdir: string, workdir: string, mark = readMark(workdir)): boolean {
  const { replaces = "", unlinked } = mark ?? {};
  if (replaces === "" && !unlinked) return false;
  if (replaces === hostdir) removeInplace(hostdir, true);
  else if (
    replaces !== "" &&
    ((isWorkDirectory(replaces) && belongsTo(replaces, hostdir)) || isRest(replaces, hostdir))
  )
    discard(replaces);
  updateMark(workdir, { replaces: undefined, unlinked: undefined });
  return true;
}

/** Identified by its name, or (adopted from the earlier program) by its mark. */
const isWorkDirectory = (dir: string): boolean =>
  isWorkDirectoryName(basename(dir)) || readMark(dir) !== undefined;

/** A working directory of this VM with only a few files left, without `.host`. */
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

/** Renames a working directory before removing it, so that a crash leaves a name that shows it is incomplete. */
function discard(dir: string): void {
  removeDirectory(setAside(dir));
}

/** Removes a working directory, and last its `.host`, by which the next command recognises it. */
export function removeDirectory(dir: string): void {
  const link = join(dir, WORK.hostLink);
  for (const name of listDirectory(dir)) if (name !== WORK.hostLink) remove(join(dir, name));
  remove(link);
  rmdirSync(dir);
}

/** An unpredictable name: other users can create files in `/tmp`. */
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

/** Is this one of the working directories of this VM, by its owner, its name and its `.host`? */
export const isOwnWork = (path: string, hostdir: string): boolean =>
  isOwnDirectory(lstatOf(path)) && hasForm(basename(path)) && isOf(path, hostdir);

const isOwnDirectory = (stats: Stats | undefined): boolean =>
  stats?.isDirectory() === true && stats.uid === callerUid();

/** `vm-XXXXXXXX-XXXXXXXX`, with a suffix if it is incomplete. */
function hasForm(name: string): boolean {
  const base = name.replace(/(\.[0-9a-f]{8})?\.discarded$|\.partial$|\.temporary$/, "");
  return isWorkDirectoryName(base);
}

/** Does its `.host` refer to this HOSTDIR? One that is being created or removed may be empty. */
const isOf = (dir: string, hostdir: string): boolean =>
  belongsTo(dir, hostdir) || listDirectory(dir).length === 0;

/**
 * Moves complete new working files into HOSTDIR; can be interrupted and repeated.
 * @throws 74, with nothing done, if the redo log was not written by this program
 */
export function rollForward(hostdir: string): void {
  const ready = join(hostdir, READY);
  requireRedoLog(ready);
  const mark = readMark(ready);
  if (mark) {
    const staged = listDirectory(ready).filter((name) => name !== WORK.mark);
    // With a damaged mark it is unknown which were moved before: nothing is removed then.
    const wanted = new Set(mark.files ?? listOwned(hostdir));
    for (const name of listOwned(hostdir)) if (!wanted.has(name)) remove(join(hostdir, name));
    for (const name of staged) {
      if (lstatSync(join(ready, name)).isDirectory()) remove(join(hostdir, name));
      renameSync(join(ready, name), join(hostdir, name));
    }
    replaceSymlink(join(hostdir, WORK.hostLink), ".");
    linkBase(hostdir, mark);
    replaceSymlink(join(hostdir, HOST.workLink), ".");
    syncDirectory(hostdir);
    renameSync(join(ready, WORK.mark), join(hostdir, WORK.mark));
  }
  remove(ready);
  finishReplacing(hostdir, hostdir);
}

/** Has the disks of a linked clone find their backing files. */
export function linkBase(dir: string, { clone }: Pick<Mark, "clone">): void {
  const link = join(dir, WORK.baseLink);
  if (clone?.base) replaceSymlink(link, clone.directory);
  else if (lstatOf(link)?.isSymbolicLink()) unlinkSync(link);
}

/** Working files in HOSTDIR that its mark lists. @param mark that of HOSTDIR, or its redo log */
export function listOwned(hostdir: string, mark: Mark | undefined = readMark(hostdir)): string[] {
  return mark ? listDirectory(hostdir).filter((name) => isWorkingFile(name) && isOwned(mark, name)) : [];
}

/** Renamed to each other while no command may rewrite the mark; no file of a user's has such a name. */
const ALWAYS_OWNED: readonly string[] = [WORK.suspended, WORK.resumed];

/** Does a working file in HOSTDIR belong to the program? With marks of earlier versions, all do. */
export const isOwned = ({ owns }: Mark, name: string): boolean =>
  ALWAYS_OWNED.includes(name) || (owns?.includes(name) ?? true);

/** Requires the redo log to contain only names that the program uses, and no symlinks. @throws 74 */
function requireRedoLog(ready: string): void {
  const stats = lstatOf(ready);
  const refuse = (path: string, reason: string): VmError =>
    new VmError("io", `cannot complete an interrupted restore: ${path} ${reason}`, {
      hint: `remove it if this program did not create it: rm -r ${shellQuote(ready)} (no file was moved)`,
    });
  if (!stats?.isDirectory() || !ownedByUs(stats)) throw refuse(ready, "is not a directory of this user");
  for (const name of listDirectory(ready)) {
    const path = join(ready, name);
    const item = lstatSync(path);
    if (!isStagedName(name)) throw refuse(path, "is not one of the program's working files");
    if (!(isDirectoryName(name) ? item.isDirectory() : item.isFile()))
      throw refuse(path, isDirectoryName(name) ? "is not a directory" : "is not a regular file");
    if (!ownedByUs(item)) throw refuse(path, "belongs to another user");
  }
  const foreign = readMark(ready)?.files?.find((name) => !isStagedName(name));
  if (foreign !== undefined)
    throw refuse(
      join(ready, WORK.mark),
      `names ${JSON.stringify(foreign)}, which is not one of the program's working files`,
    );
}

/** The mark becomes the redo log: that needs no space, and a full disk must not prevent destroy. */
const beginRemoving = (hostdir: string): void =>
  renameSync(join(hostdir, WORK.mark), join(hostdir, REMOVING));

/**
 * Removes working files in HOSTDIR. `keepLink`: `.work` already refers to another directory.
 * @throws 74, with nothing done, if the redo log is not a regular file
 */
export function removeInplace(hostdir: string, keepLink: boolean): void {
  const redo = join(hostdir, REMOVING);
  const stats = lstatOf(redo);
  if (stats && (!stats.isFile() || !ownedByUs(stats)))
    throw new VmError("io", `cannot remove working files: ${redo} is not a regular file of this user`, {
      hint: `remove it if this program did not create it: rm -r ${shellQuote(redo)} (no file was removed)`,
    });
  if (!stats) {
    if (!lstatOf(join(hostdir, WORK.mark))) return;
    beginRemoving(hostdir);
  }
  syncDirectory(hostdir);
  const link = join(hostdir, HOST.workLink);
  if (!keepLink && lstatOf(link)?.isSymbolicLink() && readlinkSync(link) === ".") unlinkSync(link);
  for (const name of listOwned(hostdir, readMarkFile(redo, false))) remove(join(hostdir, name));
  linkBase(hostdir, {});
  remove(join(hostdir, WORK.hostLink));
  remove(join(hostdir, WORK.mark));
  remove(redo);
  syncDirectory(hostdir);
}

/** WORKDIR, or its remains. */
export function directoryOf(work: Work): string | undefined {
  if (work.state === "present") return work.dir;
  return work.state === "gone" && work.remains ? work.target : undefined;
}

/**
 * Removes a VM's working files.
 * @throws a system error if nothing was removed, VmError 74 if they are gone but the clean-up is incomplete
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
