import { chmodSync, lstatSync, readlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { loadSettings } from "../config/load.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatTable } from "../lib/table.ts";
import { formatTimestamp } from "../lib/time.ts";
import { foreignReason, ownedByUs } from "../lib/trust.ts";
import { readImageHeader, readVirtualBytes } from "../qemu/image-header.ts";
import { checkImage } from "../qemu/img.ts";
import { moveAside, shellQuote } from "../lib/shell.ts";
import { newMark } from "../store/mark-types.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { allocatedBytes, fileError, listDirectory, replaceSymlink, syncDirectory } from "../store/files.ts";
import { HOST, isDiskName, READY, REMOVING, WORK } from "../store/layout.ts";
import { lockVm } from "../store/lock.ts";
import { readMark, writeMark } from "../store/mark.ts";
import { requireRegularDisk, ownDisks } from "../store/own-disks.ts";
import { findGuestEnv, type Workdir } from "../store/workdir.ts";
import { isWorkingFile } from "../store/working-names.ts";
import type { Context } from "../vm/context.ts";
import { refuseRunning } from "../vm/in-use.ts";
import { findHostdir, sourcesOf } from "../vm/find.ts";
import { hintForWork, requireVm } from "../store/no-vm.ts";
import { requireOwn } from "../vm/ownership.ts";
import { findSnapshotImage, parseBackingName } from "../store/snapshot-images.ts";
import { listSnapshots } from "../store/snapshots.ts";

/**
 * Adopts working files without a mark: those of the earlier program, which `.work` points to, or disks in HOSTDIR itself.
 * The files are not changed. The exit reason of their last run is unknown.
 * @param dryRun only print what would be adopted
 * @throws 66 if there are none, 73 or 74 if they are another user's or damaged, 75 if a qemu uses them
 */
export async function adoptVm(context: Context, dryRun: boolean): Promise<void> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, "adopt");
  using _lock = await lockVm(hostdir, "adopt");
  const work = findUnmarked(hostdir);
  if (!work) return log.info(`the working files of the VM in ${hostdir} are adopted already`);
  const guestEnv = findGuestEnv(hostdir, work);
  if (guestEnv === undefined)
    throw refuseAdoption(
      work.dir,
      `there is no ${HOST.guestEnv} in it, nor in ${hostdir}`,
      `write the VM's settings to ${HOST.guestEnv}`,
    );
  const { settings } = await loadSettings(sourcesOf(context, hostdir, work, false));
  await refuseRunning(work, "adopt");
  const named = settings.IMAGES.map(({ path }) => path).filter(isDiskName);
  const disks = [...new Set([...named, ...ownDisks(work.dir)])];
  if (disks.length === 0) throw noWork(hostdir, `cannot adopt ${work.dir}: it has no disks`);
  for (const name of disks) await requireGoodDisk(hostdir, work.dir, name);
  context.print(formatAdopted(hostdir, work, disks));
  if (dryRun) return;
  try {
    markAdopted(hostdir, work, disks);
  } catch (error) {
    throw fileError("cannot adopt the working files", error);
  }
  log.success(
    `adopted the working files in ${work.dir}; snapshots are crash-consistent until the guest has powered off once`,
  );
}

function noWork(hostdir: string, message: string): VmError {
  requireVm(hostdir);
  return new VmError("noInput", message, { hint: hintForWork(hostdir) });
}

const refuseAdoption = (path: string, reason: string, hint: string): VmError =>
  new VmError("io", `cannot adopt ${path}: ${reason}`, { hint });

/** Finds working files without a mark; undefined if they have one. @throws 66 if there are none */
function findUnmarked(hostdir: string): Workdir | undefined {
  for (const name of [READY, REMOVING])
    if (lstatOf(join(hostdir, name)))
      throw refuseAdoption(
        hostdir,
        `an interrupted command has left ${name}`,
        `finish it: ${commandLine("stop")}`,
      );
  const link = join(hostdir, HOST.workLink);
  const stats = lstatOf(link);
  if (stats && (!stats.isSymbolicLink() || !ownedByUs(stats)))
    throw refuseAdoption(link, "it is not a symlink of this user", moveAside(link));
  const target = stats && resolve(hostdir, readlinkSync(link));
  const inplace = target === undefined || !lstatOf(target) || realPath(target) === realPath(hostdir);
  const dir = inplace ? hostdir : target;
  if (!inplace) requireOwnWork(hostdir, dir);
  const found = readMark(dir);
  if (found && stats && (inplace ? realPath(link) === hostdir : true) && lstatOf(join(dir, WORK.hostLink)))
    return undefined;
  if (inplace && !listDirectory(hostdir).some(isDiskName))
    throw noWork(hostdir, `cannot adopt: there are no working files in ${hostdir}`);
  return { state: "present", dir, inplace, mark: found ?? { ...newMark(), lastRun: "unknown" } };
}

/** Requires the target of `.work` to belong to the caller, and to no other VM. */
function requireOwnWork(hostdir: string, dir: string): void {
  const stats = lstatSync(dir);
  if (!stats.isDirectory())
    throw refuseAdoption(dir, "it is not a directory", "move the symlink .work out of the way");
  const reason = foreignReason(stats);
  if (reason !== undefined)
    throw refuseAdoption(
      dir,
      `it ${reason}`,
      ownedByUs(stats) ? `chmod go-w ${shellQuote(dir)}` : "run the command as that user",
    );
  const back = join(dir, WORK.hostLink);
  const backStats = lstatOf(back);
  if (!backStats) return;
  if (!backStats.isSymbolicLink() || !ownedByUs(backStats))
    throw refuseAdoption(back, "it is not a symlink of this user", moveAside(back));
  const named = readlinkSync(back);
  // A dangling link: this VM's directory was moved.
  if (realPath(back) !== realPath(hostdir) && lstatOf(resolve(dir, named)))
    throw refuseAdoption(
      dir,
      `the working files belong to the VM in ${named}`,
      `if this is a copy of that VM, remove the symlink: rm ${shellQuote(join(hostdir, HOST.workLink))}`,
    );
}

/** @throws 66 for a missing disk, 74 for one that is another user's, not a standalone qcow2 image, or damaged */
async function requireGoodDisk(hostdir: string, dir: string, name: string): Promise<void> {
  const path = join(dir, name);
  const stats = lstatOf(path);
  if (!stats)
    throw new VmError("noInput", `cannot adopt ${dir}: the disk ${name} is missing`, {
      hint: `move the disk back, or remove it from IMAGES in ${HOST.guestEnv}`,
    });
  requireRegularDisk(path);
  if (!ownedByUs(stats))
    throw refuseAdoption(path, "it belongs to another user", "run the command as that user");
  const { format, refersTo, backingName } = readImageHeader(path);
  if (format !== "qcow2" || refersTo === "data file")
    throw refuseAdoption(
      path,
      refersTo ? "it refers to an external data file" : `it is ${format}, not qcow2`,
      `convert it: qemu-img convert -O qcow2 ${shellQuote(path)} NEW.qcow2`,
    );
  const snapshot = parseBackingName(backingName, name);
  if (refersTo && snapshot === undefined)
    throw refuseAdoption(
      path,
      `it refers to an external backing file (${backingName})`,
      `merge the backing file into it: qemu-img rebase -b '' ${shellQuote(path)}`,
    );
  const base =
    snapshot === undefined ? undefined : findSnapshotImage(join(hostdir, HOST.backups), snapshot, name);
  try {
    await checkImage({ format, path, base });
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    throw new VmError("io", `cannot adopt ${dir}: ${error.message}`, {
      cause: error,
      hint: `repair it: qemu-img check -r all ${shellQuote(path)}; or move the symlink .work away, and restore a snapshot`,
    });
  }
}

/** Table of the working files, printed before they are adopted. */
function formatAdopted(hostdir: string, { dir }: Workdir, disks: readonly string[]): string {
  const changed = Math.max(...disks.map((name) => lstatSync(join(dir, name)).mtimeMs));
  const rows = disks.map((name) => {
    const path = join(dir, name);
    const stats = lstatSync(path);
    const held = `${formatSize(readVirtualBytes(path) ?? 0)}, ${formatSize(allocatedBytes(stats))} on the host`;
    return [name, held, `changed ${formatTimestamp(stats.mtime)}`];
  });
  const others = listDirectory(dir).filter((name) => isWorkingFile(name) && !disks.includes(name));
  const last = listSnapshots(hostdir).at(-1);
  const against =
    last &&
    `made ${formatTimestamp(last.made)}; the disks are ${changed > last.made.getTime() ? "newer" : "older"}`;
  return formatTable([
    ["directory", dir, ""],
    ...rows,
    ...(others.length > 0 ? [["other files", others.toSorted().join(" "), ""]] : []),
    ["last snapshot", last?.name ?? "none", against ?? ""],
  ]);
}

/** Writes the mark, then both symlinks: an interrupted adoption can be repeated. */
function markAdopted(
  hostdir: string,
  { dir, inplace, mark: found }: Workdir,
  disks: readonly string[],
): void {
  const owns = inplace ? { owns: listDirectory(dir).filter(isWorkingFile) } : {};
  // The earlier program created it with the user's umask.
  if (!inplace) chmodSync(dir, 0o700);
  if (!lstatOf(join(dir, WORK.mark))) writeMark(dir, { ...found, ...owns, disks: [...disks] });
  replaceSymlink(join(dir, WORK.hostLink), inplace ? "." : hostdir);
  if (inplace) replaceSymlink(join(hostdir, HOST.workLink), ".");
  syncDirectory(dir);
  syncDirectory(hostdir);
}
