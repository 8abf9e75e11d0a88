import { lstatSync, readFileSync, readlinkSync, type Stats } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { commandLine, programName } from "../lib/command-line.ts";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import { formatTimestamp } from "../lib/time.ts";
import { asUser, callerUid, ownedByUs, findUserName, writableByOthers } from "../lib/trust.ts";
import { moveAside, shellQuote } from "../lib/shell.ts";
import type { Mark } from "./mark-types.ts";
import { isForbidden, lstatOf, readSmall, realPath } from "../lib/read-file.ts";
import { listDirectory, replaceSymlink } from "./files.ts";
import { namedDisks } from "./guest-env.ts";
import { HOST, isDiskName, READY, WORK } from "./layout.ts";
import { readMark } from "./mark.ts";
import { isWorkDirectoryName } from "./working-names.ts";

/** A VM's working files. */
export type Work =
  | { state: "none" }
  /**
   * `.work` refers to a directory that no longer exists (`/tmp` was cleaned by a reboot), or whose disks are all missing
   * (`remains`): systemd-tmpfiles removes old files one by one.
   */
  | { state: "gone"; target: string; made: Date; remains?: true }
  | {
      state: "present";
      dir: string;
      inplace: boolean;
      mark: Mark;
      /** The former HOSTDIR, which no longer exists, and which `.host` still refers to. */
      movedFrom?: string;
    };

export type Workdir = Extract<Work, { state: "present" }>;

function refuseLink(link: string, reason: string, hint: string): VmError {
  return new VmError("io", `cannot use ${link}: ${reason}`, { hint });
}

/** Removing the symlink would orphan what may be the only copy of the disks. */
const adopt = (): string => `adopt them if they are the VM's working files: ${commandLine("adopt")}`;

/** The same for another user's. */
const actAs = (uid: number, link: string): string =>
  `act as that user if it is that user's VM: ${asUser(uid, programName())} …; if its files are gone and another user has taken the name, move the symlink: mv ${shellQuote(link)} ${shellQuote(`${link}.old`)}`;

/** Why access is refused, and the owner. */
function unreadableWorkdir(path: string, error: unknown): VmError {
  const uid = ownerOf(path);
  const whose = uid === undefined || uid === callerUid() ? "" : `; it belongs to ${findUserName(uid)}`;
  const act = whose === "" ? "" : `act as that user: ${asUser(uid!, programName())} …`;
  return new VmError("cannotCreate", `cannot open ${path}: ${reasonOf(error)}${whose}`, {
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
 * HOSTDIR for a program started in `directory`: that, or the target of WORKDIR's `.host`.
 * @throws if `.host` refers to a directory whose `.work` does not refer back
 */
export function resolveHostdir(directory: string): string {
  const start = realPath(directory);
  if (!start && isForbidden(directory))
    throw new VmError("noInput", `cannot enter ${directory}: permission denied`);
  if (!start || !lstatSync(start).isDirectory())
    throw new VmError("noInput", `no such directory: ${directory}`);
  const link = join(start, WORK.hostLink);
  let stats: Stats | undefined;
  try {
    stats = lstatOf(link);
  } catch (error) {
    throw unreadableWorkdir(start, error);
  }
  // In place both are the same directory, whatever `.host` refers to.
  if (!stats?.isSymbolicLink() || realPath(join(start, HOST.workLink)) === start) return start;
  const target = realPath(link);
  if (target === start) return start;
  const back = target && realPath(join(target, HOST.workLink));
  // Of a foreign VM, which is only read, both must be its owner's.
  if (!target || back !== start || !(ownedByUs(stats) || stats.uid === lstatSync(target).uid))
    throw refuseLink(
      link,
      `the VM that it refers to (${readlinkSync(link)}) has its working files elsewhere`,
      "start the program in the VM's own directory",
    );
  return target;
}

/**
 * Follows `.work`, but only if it and its target belong to the caller and to each other: `/tmp` is writable by all
 * users, and directories get copied and moved.
 * @throws 74 if they do not
 */
export function resolveWork(hostdir: string): Work {
  const link = join(hostdir, HOST.workLink);
  try {
    return checkWorkLink(hostdir, link);
  } catch (error) {
    const target = realPath(link);
    throw target !== undefined && hasErrno(error, "EACCES") ? unreadableWorkdir(target, error) : error;
  }
}

function checkWorkLink(hostdir: string, link: string): Work {
  const stats = lstatOf(link);
  if (!stats) return { state: "none" };
  if (!stats.isSymbolicLink()) throw refuseLink(link, "it is not a symlink", moveAside(link));
  // Of a foreign VM, which is only read, all must be its owner's.
  const { uid: owner } = lstatSync(hostdir);
  const isOwners = (item: Stats): boolean => ownedByUs(item) || item.uid === owner;
  if (!isOwners(stats))
    throw refuseLink(link, `it belongs to ${findUserName(stats.uid)}`, actAs(stats.uid, link));
  const words = readlinkSync(link);
  const target = isAbsolute(words) ? words : resolve(hostdir, words);
  const inplace = realPath(target) === realPath(hostdir);
  const dirStats = lstatOf(inplace ? hostdir : target);
  if (!dirStats) return { state: "gone", target, made: stats.mtime };
  const unlink = `remove the symlink if its files are not needed here: rm ${shellQuote(link)}`;
  if (!dirStats.isDirectory()) throw refuseLink(link, `${target} is not a directory`, unlink);
  if (!isOwners(dirStats))
    throw refuseLink(link, `${target} belongs to ${findUserName(dirStats.uid)}`, actAs(dirStats.uid, link));
  if (writableByOthers(dirStats) && !inplace && ownedByUs(dirStats))
    throw refuseLink(link, `${target} is writable by other users`, `chmod go-w ${shellQuote(target)}`);
  if (!inplace && hasLostDisks(hostdir, target))
    return { state: "gone", target, made: stats.mtime, remains: true };
  const hostLink = join(target, WORK.hostLink);
  const hostStats = lstatOf(hostLink);
  if (!hostStats?.isSymbolicLink() || !isOwners(hostStats))
    throw refuseLink(
      link,
      `${target} has no ${WORK.hostLink} symlink of its owner`,
      hostStats && inplace ? moveAside(hostLink) : adopt(),
    );
  // The directory that `.host` refers to does not exist, or has another VM by now: this VM's directory was renamed.
  const named = readlinkSync(hostLink);
  const moved = !inplace && isAbsolute(named) && (lstatOf(named) === undefined || hasOtherVm(named, target));
  if (!moved && realPath(hostLink) !== realPath(hostdir)) {
    const original = realPath(join(named, HOST.workLink)) === realPath(target);
    throw refuseLink(
      link,
      `the working files in ${target} belong to ${named}`,
      original
        ? `remove the symlink of this copied VM, assign a UUID, and restore a snapshot: rm ${shellQuote(link)} && ${commandLine("identity", "--new")} && ${commandLine("restore")}`
        : `if the VM was moved here: ln -sfn ${shellQuote(hostdir)} ${shellQuote(hostLink)}; only if this is a copy of that VM, whose disks in ${target} are another VM's: mv ${shellQuote(link)} ${shellQuote(`${link}.old`)}`,
    );
  }
  const mark = readMark(target);
  if (!mark && inplace && lstatOf(join(hostdir, READY)))
    throw refuseLink(
      link,
      "an interrupted command has not completed its change of the working files",
      `complete it with any command that changes the VM: ${commandLine("backup")}`,
    );
  if (!mark) throw refuseLink(link, `${target} does not have this program's mark (${WORK.mark})`, adopt());
  return {
    state: "present",
    dir: inplace ? hostdir : target,
    inplace,
    mark,
    ...(moved ? { movedFrom: named } : {}),
  };
}

/** Has this directory a VM with working files and a UUID of its own? Those in `dir` are not of a copy of it, then. */
function hasOtherVm(hostdir: string, dir: string): boolean {
  const other = realPath(join(hostdir, HOST.workLink));
  const place = realPath(hostdir);
  if (other === undefined || other === realPath(dir)) return false;
  if (other !== place && realPath(join(other, WORK.hostLink)) !== place) return false;
  const [own, theirs] = [dir, other].map(readUuid);
  return own !== undefined && theirs !== undefined && own !== theirs;
}

function readUuid(dir: string): string | undefined {
  const { parseIdentity } = require("./identity.ts") as typeof import("./identity.ts");
  try {
    return parseIdentity(readSmall(join(dir, WORK.guestEnv)) ?? "")?.uuid;
  } catch {
    // An error is reported where the VM is read.
    return undefined;
  }
}

/** Did this working directory have disks, all of which are missing now? */
function hasLostDisks(hostdir: string, dir: string): boolean {
  const names = listDirectory(dir);
  // A running qemu has its disks open, even if their names are gone.
  const running = [WORK.qmp, WORK.monitor].some((name) => lstatOf(join(dir, name))?.isSocket());
  if (running || names.some(isDiskName)) return false;
  const link = join(dir, WORK.hostLink);
  const back = lstatOf(link);
  if (back && !(back.isSymbolicLink() && readlinkSync(link) === hostdir)) return false;
  const known = isWorkDirectoryName(basename(dir)) ? readMark(dir) : back && readMark(dir);
  // Only the directory is left, with a name that the program gave it.
  if (!known && !names.includes(WORK.guestEnv)) return isWorkDirectoryName(basename(dir));
  return (
    known !== undefined && [...(known.disks ?? []), ...disksNamed(dir), ...disksNamed(hostdir)].length > 0
  );
}

/** The disks that a directory's guest.env names. */
function disksNamed(directory: string): string[] {
  try {
    return namedDisks(readSmall(join(directory, HOST.guestEnv)) ?? "") ?? [];
  } catch {
    // An error is reported where the VM is read.
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
    replaceSymlink(join(work.dir, WORK.hostLink), hostdir);
  return work;
}

/** In-place working files whose `.host` is missing or wrong: the right target is known. */
function mendInplace(hostdir: string): void {
  const back = join(hostdir, WORK.hostLink);
  const stats = lstatOf(back);
  const inplace = realPath(join(hostdir, HOST.workLink)) === realPath(hostdir);
  if (!inplace || !lstatOf(join(hostdir, WORK.mark))?.isFile()) return;
  if (stats && (!stats.isSymbolicLink() || realPath(back) === realPath(hostdir))) return;
  replaceSymlink(back, ".");
}

/** Boot time of this host (proc(5), btime). */
export function bootTime(): Date | undefined {
  const seconds = /^btime (\d+)$/m.exec(readFileSync("/proc/stat", "utf8"))?.[1];
  return seconds === undefined ? undefined : new Date(+seconds * 1000);
}

/** Describes missing working files. */
export function describeGone({ target, made, remains }: Extract<Work, { state: "gone" }>): string {
  if (remains)
    return `all disks in ${target} (created ${formatTimestamp(made)}) are gone, as after systemd-tmpfiles --clean`;
  const booted = bootTime();
  const since = booted ? `; this host was booted ${formatTimestamp(booted)}` : "";
  return `the working files in ${target} (created ${formatTimestamp(made)}) are gone${since}`;
}

/** The guest.env in force: that of WORKDIR if it exists, else that of HOSTDIR. [compat] */
export function findGuestEnv(hostdir: string, work: Work): string | undefined {
  const places = work.state === "present" ? [work.dir, hostdir] : [hostdir];
  return places.map((place) => join(place, HOST.guestEnv)).find((path) => lstatOf(path) !== undefined);
}

/** The directory that contains the working directory, and its stale siblings. */
export const parentOf = (work: Work): string | undefined =>
  work.state === "none" ? undefined : dirname(work.state === "gone" ? work.target : work.dir);
