import { renameSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { hasErrno, VmError } from "../lib/errors.ts";
import { commandLine } from "../lib/command-line.ts";
import { log } from "../lib/log.ts";
import { realPath } from "../lib/read-file.ts";
import { fileError, replaceSymlink, syncDirectory } from "../store/files.ts";
import { HOST, WORK } from "../store/layout.ts";
import { lockVm } from "../store/lock.ts";
import { requireVm } from "../store/no-vm.ts";
import { lockAllUnread } from "../store/reading.ts";
import { endRenaming, readRenaming, writeRenaming } from "../store/renaming.ts";
import type { Context } from "../vm/context.ts";
import { resolveDestination } from "../vm/destination.ts";
import { readVm } from "../vm/find.ts";
import { refuseRunning } from "../vm/in-use.ts";
import { withWholeVm } from "../vm/open.ts";
import { followRename } from "../vm/renaming.ts";

/** A renamed VM, for what is not in its directory. */
export interface RenamedVm {
  /** HOSTDIR and GUESTNAME before. */
  from: string;
  guest: string;
  /** HOSTDIR now; the same if only the rest is repeated. */
  to: string;
  uuid: string;
  /** Everything on this host's disks follows it. */
  done: boolean;
}

/**
 * Renames the VM and its directory. After a kill, the next command completes it.
 * @param name a name, or a path for another place on the same filesystem
 * @throws 64 for a name that no VM can have, 73 if the directory exists or is on another filesystem, 75 while the VM runs
 */
export const renameVm = (context: Context, name: string): Promise<RenamedVm> =>
  withWholeVm(context, "rename", async (vm) => {
    const { hostdir, work, settings } = vm;
    requireVm(hostdir);
    const typed = name.includes("/") ? resolve(context.cwd, name) : join(dirname(hostdir), name);
    const before = readRenaming(hostdir) ?? { from: hostdir, guest: settings.GUESTNAME };
    if ((realPath(typed) ?? typed) === hostdir) {
      const done = await followRename(context, vm, before.from);
      return { ...before, to: hostdir, uuid: settings.UUID, done };
    }
    const within = [hostdir, ...(work.state === "present" ? [work.dir] : [])];
    const to = resolveDestination("rename", typed, context.cwd, within);
    if (work.state === "present") await refuseRunning(work, "rename");
    using _unread = lockAllUnread(hostdir, "cannot rename");
    // [compat] It may be absolute.
    if (work.state === "present" && work.inplace) replaceSymlink(join(hostdir, HOST.workLink), ".");
    writeRenaming(hostdir, before);
    try {
      renameSync(hostdir, to);
    } catch (error) {
      endRenaming(hostdir);
      throw hasErrno(error, "EXDEV") ? otherFilesystem(to) : fileError(`cannot rename ${hostdir}`, error);
    }
    for (const parent of new Set([dirname(hostdir), dirname(to)])) syncDirectory(parent);
    if (work.state === "present" && !work.inplace) replaceSymlink(join(work.dir, WORK.hostLink), to);
    const renamed = await readVm(context, to, true, { lenient: true });
    const done = await followRename(context, renamed, hostdir);
    return { ...before, to, uuid: settings.UUID, done };
  });

const otherFilesystem = (to: string): VmError =>
  new VmError("cannotCreate", `cannot rename: ${dirname(to)} is on another filesystem`, {
    hint: `clone the VM there, then destroy this one: ${commandLine("clone", "--keep-guest", to)}`,
  });

/** The rename is complete: nothing has the old name any more. */
export async function finishRename({ from, to, done }: RenamedVm): Promise<void> {
  using _lock = await lockVm(to, "rename");
  if (done) endRenaming(to);
  log.success(from === to ? `${basename(to)} has this name everywhere` : `renamed ${from} to ${to}`);
}

/** @throws 64 in a batch with later commands, which would look for the VM in its old place */
export function refuseBeforeOthers({ batch = [] }: Context): void {
  if (batch.lastIndexOf("rename") === batch.length - 1) return;
  throw new VmError("usage", "rename: it must be the last command of a batch", {
    hint: "run the others with the new directory afterwards",
  });
}

/** The VM in its new directory. */
export const contextOfRenamed = (context: Context, { to }: RenamedVm): Context => ({
  ...context,
  hostdir: to,
  options: { ...context.options, hostdir: to },
});
