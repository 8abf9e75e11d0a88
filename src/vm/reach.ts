import { basename, dirname, join, resolve, sep } from "node:path";
import type { SettingName } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { realPath } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import { expandMacro, type MacroValues } from "../machine/macros.ts";
import { readImageHeader, readOwnHeader } from "../qemu/image-header.ts";
import { listDirectory } from "../store/files.ts";
import { HOST, isDiskName, WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import { findExtraArgs, parseExtraArgs } from "./extra-args.ts";
import { ownDisks } from "../store/own-disks.ts";
import type { Vm } from "./find.ts";
import { parseBackingName } from "../store/snapshot-images.ts";

/**
 * Something outside a VM's directory that `run` and `job` access because of its settings, or run with the caller's rights
 * (README, "Trust"), as `status --json` prints it.
 */
export interface Reach {
  /** `base`: a backing file of a disk; `command`: one that qemu runs for a connection of the guest. */
  kind: "share" | "image" | "netboot" | "arguments" | "job" | "base" | "command";
  /** A path; for `arguments` also their count. */
  what: string;
  /** The guest may write there. */
  writable?: boolean;
  /** An image whose backing files are opened as well. */
  backing?: true;
}

/** Is a setting from the VM's own guest.env? Those of the user are trusted. */
const setByVm = ({ origins, hostdir, work }: Vm, name: SettingName): boolean => {
  const origin = origins[name];
  const own = [hostdir, ...(work.state === "present" ? [work.dir] : [])];
  return origin.kind === "file" && own.some((directory) => origin.file === join(directory, WORK.guestEnv));
};

/** Values of macros without check-media. */
export const knownMacros = ({ hostdir }: Vm, workdir: string): MacroValues => ({
  MEDIA: undefined,
  MIRROR: undefined,
  HOSTDIR: hostdir,
  INDIR: join(workdir, WORK.in),
  DATADIR: join(workdir, WORK.out),
});

/** Finds them without opening any outside the VM's directories. */
export function findReaches(context: Context, vm: Vm): Reach[] {
  const { settings, hostdir, work } = vm;
  const workdir = work.state === "present" ? work.dir : join(hostdir, HOST.workLink);
  const macros = knownMacros(vm, workdir);
  /** Undefined within the VM; macros of check-media are not expanded. */
  const outside = (path: string): string | undefined => {
    const expanded = expandMacro(path, macros);
    if (expanded === undefined) return path;
    const whole = resolve(workdir, expanded);
    if (!isWithin(whole)) return whole;
    // A symlink may lead out.
    const real = realPath(whole) ?? whole;
    return isWithin(real) ? undefined : real;
  };
  const tops = [hostdir, workdir].flatMap((top) => [top, realPath(top) ?? top]);
  const isWithin = (path: string): boolean => tops.some((top) => path === top || path.startsWith(top + sep));
  const found: Reach[] = [];
  const add = (kind: Reach["kind"], path: string | undefined, writable?: boolean): void => {
    if (path !== undefined) found.push({ kind, what: path, ...(writable === undefined ? {} : { writable }) });
  };
  for (const name of ["SHARES", "RESCUE_SHARES"] as const)
    if (setByVm(vm, name))
      for (const { path, writable } of settings[name]) if (writable) add("share", outside(path), true);
  if (setByVm(vm, "NETBOOT_DIR") && settings.NETBOOT_DIR !== "")
    add("netboot", outside(settings.NETBOOT_DIR));
  for (const name of ["FORWARDS", "RESCUE_FORWARDS"] as const)
    if (setByVm(vm, name))
      for (const option of settings[name]) found.push(...reachesOfForward(option, outside));
  if (setByVm(vm, "IMAGES"))
    for (const { path, format } of settings.IMAGES) {
      const place = outside(path);
      const backing = format !== undefined && format !== "raw";
      if (place !== undefined)
        found.push({ kind: "image", what: place, writable: true, ...(backing && { backing }) });
      else if (backing && !isDiskName(path))
        for (const base of basesOf(resolve(workdir, expandMacro(path, macros)!), isWithin)) add("base", base);
    }
  if (work.state === "present") for (const disk of ownDisks(work.dir)) add("base", baseOf(work.dir, disk));
  const further = findExtraArgs(context, vm);
  if (further?.ofVm)
    add("arguments", `${further.file} (${countOf(() => parseExtraArgs(context, vm, further))})`);
  for (const name of listDirectory(hostdir))
    if (/^[^.-].*\.(job|pre|post)$/s.test(name)) add("job", join(hostdir, name));
  return found;
}

/**
 * What an option of `-netdev user` lets the guest reach on the host: `smb=DIR`, `tftp=DIR`, `guestfwd=…-cmd:COMMAND`
 * (qemu's invocation, "Network options").
 */
function reachesOfForward(option: string, outside: (path: string) => string | undefined): Reach[] {
  const [, name, text = ""] = /^(\w+)=(.*)$/s.exec(option.replaceAll(",,", ",")) ?? [];
  if (name === "guestfwd") {
    const command = /-cmd:(.*)$/s.exec(text)?.[1];
    return command === undefined ? [] : [{ kind: "command", what: command }];
  }
  const what = name === "smb" || name === "tftp" ? outside(text) : undefined;
  if (what === undefined) return [];
  return [name === "smb" ? { kind: "share", what, writable: true } : { kind: "netboot", what }];
}

/** Longest chain of backing files that is followed. */
const MAX_CHAIN = 32;

/** The first backing file outside the VM of an image within it, or what else it refers to. */
function basesOf(image: string, isWithin: (path: string) => boolean): string[] {
  let path = image;
  for (let depth = 0; depth < MAX_CHAIN; depth++) {
    try {
      const { backingName, refersTo } = readImageHeader(path);
      if (backingName === undefined) return refersTo === undefined ? [] : [`${path} (its ${refersTo})`];
      path = resolve(dirname(path), backingName.replace(/^file:/, ""));
    } catch {
      // Reported elsewhere.
      return [];
    }
    if (!isWithin(realPath(path) ?? path)) return [path];
  }
  return [path];
}

/** The backing file of a disk, unless it is one of the VM's snapshots. */
function baseOf(directory: string, disk: string): string | undefined {
  try {
    const backing = readOwnHeader(join(directory, disk)).backingName;
    return backing === undefined || parseBackingName(backing, disk) !== undefined
      ? undefined
      : followLink(resolve(directory, backing));
  } catch {
    // `status` reports an unreadable disk elsewhere.
    return undefined;
  }
}

/** As the user knows it: that of a linked clone is named through a symlink. */
const followLink = (path: string): string => join(realPath(dirname(path)) ?? dirname(path), basename(path));

function countOf(read: () => string[]): string {
  try {
    const count = read().length;
    return `${count} argument${count === 1 ? "" : "s"} for qemu`;
  } catch (error) {
    if (error instanceof VmError) return "not readable";
    throw error;
  }
}

/** Formats one line. */
export const formatReach = ({ kind, what, writable, backing }: Reach): string =>
  plain(`${kind} ${what}${writable ? ", writable" : ""}${backing ? ", with its backing files" : ""}`);
