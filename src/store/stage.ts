import { createHash, randomBytes } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readlinkSync,
  realpathSync,
  renameSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { ownedByUs } from "../config/trust.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { fileError, listDirectory, lstatOf, remove, replaceLink, syncDirectory, writeNew } from "./files.ts";
import { HOST, isDiskName, PARTIAL, READY, REMOVING, RUN_FILES, WORK } from "./layout.ts";
import { newMark, readMark, updateMark, writeMark, type Mark } from "./mark.ts";
import type { Work } from "./workdir.ts";

/** New working files while they are made; nobody sees them before `commit`. */
export interface Stage {
  readonly dir: string;
  /** Puts them in the place of the old ones in one step (in place: with a redo log). Returns WORKDIR. */
  commit(mark?: Partial<Mark>): string;
  /** Leaves no trace. */
  abort(): void;
}

/** Working directories of one VM share a prefix, so that what a crash left can be found. */
const workPrefix = (hostdir: string): string =>
  `vm-${createHash("sha256").update(hostdir).digest("hex").slice(0, 8)}-`;

const UNFINISHED = ".partial";
const DISCARDED = ".discarded";

/** Begins new working files: in `tmpdir`, or in HOSTDIR itself. */
export function stageWork(hostdir: string, place: { tmpdir: string } | "inplace", old: Work): Stage {
  return place === "inplace" ? stageInplace(hostdir, old) : stageInTmp(hostdir, place.tmpdir, old);
}

function stageInTmp(hostdir: string, tmpdir: string, old: Work): Stage {
  const final = join(tmpdir, workPrefix(hostdir) + randomBytes(4).toString("hex"));
  const dir = final + UNFINISHED;
  try {
    mkdirSync(dir, { mode: 0o700 });
    symlinkSync(hostdir, join(dir, WORK.hostLink));
  } catch (error) {
    if (existsSync(dir)) remove(dir);
    throw new VmError("cannotCreate", `cannot make working files in ${tmpdir}: ${reasonOf(error)}`, {
      cause: error,
      hint: "TMPDIR names a directory of yours with room for the disks; or keep them in HOSTDIR: --inplace",
    });
  }
  return {
    dir,
    commit: (mark = {}) => {
      const replaced = old.state === "present" ? { replaces: old.dir } : {};
      writeMark(dir, { ...newMark(), ...mark, ...replaced });
      syncDirectory(dir);
      renameSync(dir, final);
      syncDirectory(tmpdir);
      try {
        replaceLink(join(hostdir, HOST.workLink), final);
      } catch (error) {
        remove(final);
        throw error;
      }
      finishReplacing(hostdir, final);
      return final;
    },
    abort: () => remove(dir),
  };
}

/** Removes what new working files took the place of. */
function finishReplacing(hostdir: string, workdir: string): void {
  const replaces = readMark(workdir)?.replaces;
  if (!replaces) return;
  if (replaces === hostdir) removeInplace(hostdir, true);
  else if (belongsTo(replaces, hostdir)) discard(replaces);
  updateMark(workdir, { replaces: undefined });
}

/** Removes a working directory so that a crash halfway leaves a name which shows that. */
function discard(dir: string): void {
  renameSync(dir, dir + DISCARDED);
  remove(dir + DISCARDED);
}

function belongsTo(dir: string, hostdir: string): boolean {
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

function stageInplace(hostdir: string, old: Work): Stage {
  const dir = join(hostdir, `${PARTIAL}work`);
  try {
    remove(dir);
    mkdirSync(dir, { mode: 0o700 });
  } catch (error) {
    throw fileError(`cannot make working files in ${hostdir}`, error);
  }
  return {
    dir,
    commit: (mark = {}) => {
      const replaced = old.state === "present" && !old.inplace ? { replaces: old.dir } : {};
      const files = listDirectory(dir);
      writeMark(dir, { ...newMark(), ...mark, ...replaced, files });
      syncDirectory(dir);
      renameSync(dir, join(hostdir, READY));
      syncDirectory(hostdir);
      rollForward(hostdir);
      return hostdir;
    },
    abort: () => remove(dir),
  };
}

/** Moves complete new working files into HOSTDIR; may be interrupted and repeated. */
function rollForward(hostdir: string): void {
  const ready = join(hostdir, READY);
  const mark = readMark(ready);
  if (mark) {
    const wanted = new Set(mark.files);
    for (const name of listDirectory(hostdir))
      if (isWorkingFile(name) && name !== HOST.guestEnv && !wanted.has(name)) remove(join(hostdir, name));
    for (const name of mark.files ?? []) {
      if (!existsSync(join(ready, name))) continue;
      if (lstatSync(join(ready, name)).isDirectory()) remove(join(hostdir, name));
      renameSync(join(ready, name), join(hostdir, name));
    }
    replaceLink(join(hostdir, WORK.hostLink), ".");
    replaceLink(join(hostdir, HOST.workLink), ".");
    syncDirectory(hostdir);
    renameSync(join(ready, WORK.mark), join(hostdir, WORK.mark));
  }
  remove(ready);
  finishReplacing(hostdir, hostdir);
}

/** Names that `destroy` may remove from an in-place HOSTDIR, and that a restore replaces there. */
function isWorkingFile(name: string): boolean {
  const names: string[] = [
    ...RUN_FILES,
    WORK.spicePassword,
    WORK.in,
    WORK.out,
    WORK.efivars,
    WORK.firstTime,
    WORK.runScript,
    WORK.consoleLog,
    WORK.qemuLog,
  ];
  return isDiskName(name) || names.includes(name);
}

/** Removes working files kept in HOSTDIR. `keepLink`: `.work` leads somewhere new already. */
function removeInplace(hostdir: string, keepLink: boolean): void {
  const redo = join(hostdir, REMOVING);
  if (!existsSync(redo)) writeNew(redo, "the working files here are being removed\n");
  syncDirectory(hostdir);
  const link = join(hostdir, HOST.workLink);
  if (!keepLink && lstatOf(link) && readlinkSync(link) === ".") unlinkSync(link);
  for (const name of listDirectory(hostdir)) if (isWorkingFile(name)) remove(join(hostdir, name));
  remove(join(hostdir, WORK.hostLink));
  remove(join(hostdir, WORK.mark));
  remove(redo);
  syncDirectory(hostdir);
}

/** Removes a VM's working files, link first: from then on it has none. */
export function removeWork(hostdir: string, work: Work): void {
  if (work.state === "present" && work.inplace) return removeInplace(hostdir, false);
  if (work.state === "present") renameSync(work.dir, work.dir + DISCARDED);
  if (work.state !== "none") unlinkSync(join(hostdir, HOST.workLink));
  syncDirectory(hostdir);
  if (work.state === "present") remove(work.dir + DISCARDED);
}

/**
 * Finishes or undoes what a killed command left behind. Called under the VM's lock, before anything else.
 * @param parents directories where this VM's working directories may be
 */
export function recoverWork(hostdir: string, parents: readonly string[]): void {
  if (existsSync(join(hostdir, READY))) rollForward(hostdir);
  if (existsSync(join(hostdir, REMOVING))) {
    const link = join(hostdir, HOST.workLink);
    removeInplace(hostdir, lstatOf(link)?.isSymbolicLink() === true && readlinkSync(link) !== ".");
  }
  for (const name of listDirectory(hostdir)) if (name.startsWith(PARTIAL)) remove(join(hostdir, name));
  const current = currentTarget(hostdir);
  const prefix = workPrefix(hostdir);
  for (const parent of new Set(
    parents.filter((item) => existsSync(item)).map((item) => realpathSync(item)),
  )) {
    for (const name of listDirectory(parent)) {
      if (!name.startsWith(prefix)) continue;
      const path = join(parent, name);
      if (name.endsWith(DISCARDED) && path === current + DISCARDED) unlinkSync(join(hostdir, HOST.workLink));
      const leftOver = name.endsWith(UNFINISHED) || name.endsWith(DISCARDED) || neverUsed(path, hostdir);
      const stats = leftOver && path !== current ? lstatOf(path) : undefined;
      if (stats?.isDirectory() && ownedByUs(stats)) remove(path);
    }
  }
  if (!current || !belongsTo(current, hostdir)) return;
  for (const name of listDirectory(current)) if (name.startsWith(PARTIAL)) remove(join(current, name));
  finishReplacing(hostdir, current);
}

/** Where `.work` leads, without links on the way, whether anything is there or not. */
function currentTarget(hostdir: string): string {
  const link = join(hostdir, HOST.workLink);
  return lstatOf(link)?.isSymbolicLink() ? canonical(resolve(hostdir, readlinkSync(link))) : "";
}

/** A path without links in its directory part. */
function canonical(path: string): string {
  try {
    return join(realpathSync(dirname(path)), basename(path));
  } catch {
    return path;
  }
}

/** Complete working files that never became the VM's: made, not yet linked, never run. */
function neverUsed(dir: string, hostdir: string): boolean {
  return belongsTo(dir, hostdir) && readMark(dir)?.lastRun === undefined && readMark(dir) !== undefined;
}
