import { lstatSync, readFileSync, readlinkSync, type Stats } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { commandLine, programName } from "../lib/command-line.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { formatTimestamp } from "../lib/time.ts";
import { asUser, callerUid, ownedByUs, userName, writableByOthers } from "../lib/trust.ts";
import { shellQuote } from "../lib/shell.ts";
import { listDirectory, lstatOf, readSmall, realPath, swingLink } from "./files.ts";
import { namedDisks } from "./guest-env.ts";
import { HOST, isDiskName, READY, WORK } from "./layout.ts";
import { readMark, type Mark } from "./mark.ts";
import { isWorkDirectoryName } from "./working-names.ts";

/** A VM's working files. */
export type Work =
  | { state: "none" }
  /**
   * `.work` points at a directory that is not there any more (a reboot cleaned `/tmp`, say), or whose disks are all gone
   * (`remains`): systemd-tmpfiles removes old files one by one.
   */
  | { state: "gone"; target: string; made: Date; remains?: true }
  | {
      state: "present";
      dir: string;
      inplace: boolean;
      mark: Mark;
      /** Where HOSTDIR was when they were made: nothing is there any more, and `.host` still leads to it. */
      movedFrom?: string;
    };

export type Present = Extract<Work, { state: "present" }>;

function refuse(link: string, reason: string, hint: string): VmError {
  return new VmError("io", `cannot use ${link}: ${reason}`, { hint });
}

/** Removing the link would orphan what may be the only copy of the disks. */
const adopt = (): string => `if these are the VM's working files, take them over: ${commandLine("adopt")}`;

/** The same of another user's. */
const actAs = (uid: number, link: string): string =>
  `if the VM is that user's, act as that user: ${asUser(uid, programName())} …; if its files are gone and others have taken the name, set the link aside: mv ${shellQuote(link)} ${shellQuote(`${link}.old`)}`;

/** Why the system refuses a look, and whose it is. */
function unreadable(path: string, error: unknown): VmError {
  const uid = ownerOf(path);
  const whose = uid === undefined || uid === callerUid() ? "" : `; it belongs to ${userName(uid)}`;
  const act = whose === "" ? "" : `act as that user: ${asUser(uid!, programName())} …`;
  return new VmError("noInput", `cannot look into ${path}: ${reasonOf(error)}${whose}`, {
    hint: act || `chmod u+rwx ${shellQuote(path)}`,
  });
}

function ownerOf(path: string): number | undefined {
  try {
    return lstatOf(path)?.uid;
  } catch {
    return undefined;
  }
}

/**
 * Where HOSTDIR is when the program was started in `directory`: there, or where WORKDIR's `.host` leads.
 * @throws when `.host` leads to a directory whose `.work` does not lead back
 */
export function resolveHostdir(directory: string): string {
  const start = realPath(directory);
  if (!start || !lstatSync(start).isDirectory())
    throw new VmError("noInput", `no such directory: ${directory}`);
  const link = join(start, WORK.hostLink);
  let stats: Stats | undefined;
  try {
    stats = lstatOf(link);
  } catch (error) {
    throw unreadable(start, error);
  }
  // In place both are the same directory, whatever became of the link back.
  if (!stats?.isSymbolicLink() || realPath(join(start, HOST.workLink)) === start) return start;
  const target = realPath(link);
  if (target === start) return start;
  const back = target && realPath(join(target, HOST.workLink));
  // Of a foreign VM, which is looked at only, both are its owner's.
  if (!target || back !== start || !(ownedByUs(stats) || stats.uid === lstatSync(target).uid))
    throw refuse(
      link,
      `the VM it names (${readlinkSync(link)}) does not have its working files here`,
      "start the program in the VM's own directory",
    );
  return target;
}

/**
 * Follows `.work`, but only where it and its target are ours and belong together: `/tmp` is open to
 * everybody, and directories get copied and moved.
 * @throws 74 when they do not
 */
export function resolveWork(hostdir: string): Work {
  const link = join(hostdir, HOST.workLink);
  const stats = lstatOf(link);
  if (!stats) return { state: "none" };
  if (!stats.isSymbolicLink()) throw refuse(link, "it is no symbolic link", "move it out of the way");
  // Of a foreign VM, which is looked at only, all must be its owner's.
  const { uid: owner } = lstatSync(hostdir);
  const isOwners = (item: Stats): boolean => ownedByUs(item) || item.uid === owner;
  if (!isOwners(stats)) throw refuse(link, `it belongs to ${userName(stats.uid)}`, actAs(stats.uid, link));
  const words = readlinkSync(link);
  const target = isAbsolute(words) ? words : resolve(hostdir, words);
  const inplace = realPath(target) === realPath(hostdir);
  const dirStats = lstatOf(inplace ? hostdir : target);
  if (!dirStats) return { state: "gone", target, made: stats.mtime };
  const unlink = `if its files are not needed here, remove the link: rm ${shellQuote(link)}`;
  if (!dirStats.isDirectory()) throw refuse(link, `${target} is no directory`, unlink);
  if (!isOwners(dirStats))
    throw refuse(link, `${target} belongs to ${userName(dirStats.uid)}`, actAs(dirStats.uid, link));
  if (writableByOthers(dirStats) && !inplace && ownedByUs(dirStats))
    throw refuse(link, `${target} may be written by others`, `chmod go-w ${shellQuote(target)}`);
  if (!inplace && hasLostDisks(hostdir, target))
    return { state: "gone", target, made: stats.mtime, remains: true };
  const hostLink = join(target, WORK.hostLink);
  const hostStats = lstatOf(hostLink);
  if (!hostStats?.isSymbolicLink() || !isOwners(hostStats))
    throw refuse(
      link,
      `${target} has no ${WORK.hostLink} link of its owner's`,
      hostStats && inplace
        ? `move it out of the way: mv ${shellQuote(hostLink)} ${shellQuote(hostLink)}.old`
        : adopt(),
    );
  // Nobody else's where there is nobody: this VM's directory has got another name.
  const named = readlinkSync(hostLink);
  const moved = !inplace && isAbsolute(named) && lstatOf(named) === undefined;
  if (!moved && realPath(hostLink) !== realPath(hostdir)) {
    const original = realPath(join(named, HOST.workLink)) === realPath(target);
    throw refuse(
      link,
      `the working files in ${target} belong to ${named}`,
      original
        ? `this is a copy of that VM; remove the copied link, and restore a snapshot: rm ${shellQuote(link)} && ${commandLine("restore")}`
        : `if this is a copy of that VM, remove the link: rm ${shellQuote(link)}; if the VM was moved: ln -sfn ${shellQuote(hostdir)} ${shellQuote(hostLink)}`,
    );
  }
  const mark = readMark(target);
  if (!mark && inplace && lstatOf(join(hostdir, READY)))
    throw refuse(
      link,
      "a command that was interrupted has not finished with the working files",
      `the next command that changes the VM finishes: ${commandLine("backup")}`,
    );
  if (!mark) throw refuse(link, `${target} does not carry this program's mark (${WORK.mark})`, adopt());
  return {
    state: "present",
    dir: inplace ? hostdir : target,
    inplace,
    mark,
    ...(moved ? { movedFrom: named } : {}),
  };
}

/** Were there disks in this working directory of the VM, all of which are gone? */
function hasLostDisks(hostdir: string, dir: string): boolean {
  const names = listDirectory(dir);
  // A qemu that runs has its disks open, wherever their names went.
  const running = [WORK.qmp, WORK.monitor].some((name) => lstatOf(join(dir, name))?.isSocket());
  if (running || names.some(isDiskName)) return false;
  const link = join(dir, WORK.hostLink);
  const back = lstatOf(link);
  if (back && !(back.isSymbolicLink() && readlinkSync(link) === hostdir)) return false;
  const known = isWorkDirectoryName(basename(dir)) ? readMark(dir) : back && readMark(dir);
  // Everything has gone but the directory, which has a name of the program's.
  if (!known && !names.includes(WORK.guestEnv)) return isWorkDirectoryName(basename(dir));
  return (
    known !== undefined && [...(known.disks ?? []), ...disksNamed(dir), ...disksNamed(hostdir)].length > 0
  );
}

/** The disks that a directory's guest.env names. */
function disksNamed(directory: string): string[] {
  try {
    return namedDisks(readSmall(join(directory, HOST.guestEnv)) ?? "");
  } catch {
    // Reading the VM says what is wrong with it.
    return [];
  }
}

/**
 * Follows `.work`, and has the working files of a VM whose directory was moved lead there. Called under the VM's lock.
 * @returns them, with where they led before
 * @throws as `resolveWork`
 */
export function repointHost(hostdir: string): Work {
  mendInplace(hostdir);
  const work = resolveWork(hostdir);
  if (work.state === "present" && work.movedFrom !== undefined)
    swingLink(join(work.dir, WORK.hostLink), hostdir);
  return work;
}

/** Working files in place whose link back is gone or wrong: where it points is known. */
function mendInplace(hostdir: string): void {
  const back = join(hostdir, WORK.hostLink);
  const stats = lstatOf(back);
  const inplace = realPath(join(hostdir, HOST.workLink)) === realPath(hostdir);
  if (!inplace || !lstatOf(join(hostdir, WORK.mark))?.isFile()) return;
  if (stats && (!stats.isSymbolicLink() || realPath(back) === realPath(hostdir))) return;
  swingLink(back, ".");
}

/** When this machine was started last, as the kernel tells (proc(5)). */
export function bootTime(): Date | undefined {
  const seconds = /^btime (\d+)$/m.exec(readFileSync("/proc/stat", "utf8"))?.[1];
  return seconds === undefined ? undefined : new Date(+seconds * 1000);
}

/** Says what became of working files that are gone, for people. */
export function describeGone({ target, made, remains }: Extract<Work, { state: "gone" }>): string {
  if (remains)
    return `all disks in ${target} (made ${formatTimestamp(made)}) are gone, as after systemd-tmpfiles --clean`;
  const booted = bootTime();
  const since = booted ? `; this machine was last started ${formatTimestamp(booted)}` : "";
  return `the working files in ${target} (made ${formatTimestamp(made)}) are gone${since}`;
}

/** The guest.env in force: WORKDIR's if there is one, else HOSTDIR's. [compat] */
export function findGuestEnv(hostdir: string, work: Work): string | undefined {
  const places = work.state === "present" ? [work.dir, hostdir] : [hostdir];
  return places.map((place) => join(place, HOST.guestEnv)).find((path) => lstatOf(path) !== undefined);
}

/** Directory part of a working directory: where its stale siblings would be. */
export const parentOf = (work: Work): string | undefined =>
  work.state === "none" ? undefined : dirname(work.state === "gone" ? work.target : work.dir);
