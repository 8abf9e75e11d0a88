import { createHash, randomBytes } from "node:crypto";
import { existsSync, lstatSync, readlinkSync, renameSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { ownedByUs } from "../lib/trust.ts";
import { afterCommit, listDirectory, lstatOf, remove, swingLink, syncDirectory } from "./files.ts";
import { HOST, isDiskName, READY, REMOVING, RUN_FILES, WORK } from "./layout.ts";
import { readMark, updateMark } from "./mark.ts";
import type { Work } from "./workdir.ts";

/** Working directories of one VM share a prefix, so that what a crash left can be found. */
export const workPrefix = (hostdir: string): string =>
  `vm-${createHash("sha256").update(hostdir).digest("hex").slice(0, 8)}-`;

export const UNFINISHED = ".partial";
export const DISCARDED = ".discarded";

/** Removes what new working files took the place of. */
export function finishReplacing(hostdir: string, workdir: string): void {
  const replaces = readMark(workdir)?.replaces;
  if (!replaces) return;
  if (replaces === hostdir) removeInplace(hostdir, true);
  else if (belongsTo(replaces, hostdir)) discard(replaces);
  updateMark(workdir, { replaces: undefined });
}

/** Removes a working directory so that a crash halfway leaves a name which shows that. */
function discard(dir: string): void {
  remove(setAside(dir));
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

/** Moves complete new working files into HOSTDIR; may be interrupted and repeated. */
export function rollForward(hostdir: string): void {
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
    swingLink(join(hostdir, WORK.hostLink), ".");
    swingLink(join(hostdir, HOST.workLink), ".");
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
    WORK.eventsIn,
    WORK.eventsOut,
    WORK.in,
    WORK.out,
    WORK.efivars,
    WORK.seed,
    WORK.firstTime,
    WORK.runScript,
    WORK.rescueScript,
    WORK.consoleLog,
    WORK.knownHosts,
    WORK.rescueConsoleLog,
    WORK.qemuLog,
  ];
  return isDiskName(name) || names.includes(name);
}

/** Our mark turns into the redo log: that takes no room, and destroying is what makes some. */
const beginRemoving = (hostdir: string): void =>
  renameSync(join(hostdir, WORK.mark), join(hostdir, REMOVING));

/** Removes working files kept in HOSTDIR. `keepLink`: `.work` leads somewhere new already. */
export function removeInplace(hostdir: string, keepLink: boolean): void {
  const redo = join(hostdir, REMOVING);
  if (!existsSync(redo) && existsSync(join(hostdir, WORK.mark))) beginRemoving(hostdir);
  syncDirectory(hostdir);
  const link = join(hostdir, HOST.workLink);
  if (!keepLink && lstatOf(link) && readlinkSync(link) === ".") unlinkSync(link);
  for (const name of listDirectory(hostdir)) if (isWorkingFile(name)) remove(join(hostdir, name));
  remove(join(hostdir, WORK.hostLink));
  remove(join(hostdir, WORK.mark));
  remove(redo);
  syncDirectory(hostdir);
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
  const aside = work.state === "present" ? setAside(work.dir) : undefined;
  afterCommit("the working files are gone", () => {
    unlinkSync(join(hostdir, HOST.workLink));
    try {
      syncDirectory(hostdir);
    } finally {
      if (aside) remove(aside);
    }
  });
}
