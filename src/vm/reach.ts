import { isAbsolute, join, resolve, sep } from "node:path";
import type { SettingName } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { plain } from "../lib/text.ts";
import { expandMacro, type MacroValues } from "../machine/macros.ts";
import { readOwnHeader } from "../qemu/image-header.ts";
import { listDirectory } from "../store/files.ts";
import { HOST, WORK } from "../store/layout.ts";
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
  /** `base`: a backing file of a working disk. */
  kind: "share" | "image" | "netboot" | "arguments" | "job" | "base";
  /** A path; for `arguments` also their count. */
  what: string;
  /** The guest may write there. */
  writable?: boolean;
}

/** Is a setting from the VM's own guest.env? Those of the user are trusted. */
const setByVm = ({ origins, hostdir, work }: Vm, name: SettingName): boolean => {
  const origin = origins[name];
  const own = [hostdir, ...(work.state === "present" ? [work.dir] : [])];
  return origin.kind === "file" && own.some((directory) => origin.file === join(directory, WORK.guestEnv));
};

/** Finds them without opening any. */
export function findReaches(context: Context, vm: Vm): Reach[] {
  const { settings, hostdir, work } = vm;
  const workdir = work.state === "present" ? work.dir : join(hostdir, HOST.workLink);
  const macros: MacroValues = {
    MEDIA: undefined,
    MIRROR: undefined,
    HOSTDIR: hostdir,
    INDIR: join(workdir, WORK.in),
    DATADIR: join(workdir, WORK.out),
  };
  /** Undefined within the VM; macros of check-media are not expanded. */
  const outside = (path: string): string | undefined => {
    const expanded = expandMacro(path, macros);
    if (expanded === undefined) return path;
    const whole = isAbsolute(expanded) ? resolve(expanded) : resolve(workdir, expanded);
    const within = [hostdir, workdir].some((top) => whole === top || whole.startsWith(top + sep));
    return within ? undefined : whole;
  };
  const found: Reach[] = [];
  const add = (kind: Reach["kind"], path: string | undefined, writable?: boolean): void => {
    if (path !== undefined) found.push({ kind, what: path, ...(writable === undefined ? {} : { writable }) });
  };
  for (const name of ["SHARES", "RESCUE_SHARES"] as const)
    if (setByVm(vm, name))
      for (const { path, writable } of settings[name]) if (writable) add("share", outside(path), true);
  if (setByVm(vm, "NETBOOT_DIR") && settings.NETBOOT_DIR !== "")
    add("netboot", outside(settings.NETBOOT_DIR));
  if (setByVm(vm, "IMAGES")) for (const { path } of settings.IMAGES) add("image", outside(path), true);
  if (work.state === "present") for (const disk of ownDisks(work.dir)) add("base", baseOf(work.dir, disk));
  const further = findExtraArgs(context, vm);
  if (further?.ofVm)
    add("arguments", `${further.file} (${countOf(() => parseExtraArgs(context, vm, further))})`);
  for (const name of listDirectory(hostdir))
    if (/^[^.-].*\.(job|pre|post)$/s.test(name)) add("job", join(hostdir, name));
  return found;
}

/** The backing file of a disk, unless it is one of the VM's snapshots. */
function baseOf(directory: string, disk: string): string | undefined {
  try {
    const backing = readOwnHeader(join(directory, disk)).backingName;
    return backing === undefined || parseBackingName(backing, disk) !== undefined
      ? undefined
      : resolve(directory, backing);
  } catch {
    // `status` reports an unreadable disk elsewhere.
    return undefined;
  }
}

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
export const formatReach = ({ kind, what, writable }: Reach): string =>
  plain(`${kind} ${what}${writable ? ", writable" : ""}`);
