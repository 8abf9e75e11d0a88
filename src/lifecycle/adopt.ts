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
import { shellQuote } from "../lib/shell.ts";
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
 * Takes over working files that carry no mark: those of the earlier program behind `.work`, or disks in HOSTDIR itself.
 * The files stay as they are. How their last run ended is not known.
 * @param dryRun only show what is there
 * @throws 66 when there are none, 73 or 74 when they are not the caller's or not in order, 75 while a qemu uses them
 */
export async function adoptVm(context: Context, dryRun: boolean): Promise<void> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, "adopt");
  using _lock = await lockVm(hostdir, "adopt");
  const work = findUnmarked(hostdir);
  if (!work) return log.info(`the working files of the VM in ${hostdir} carry this program's mark already`);
  const guestEnv = findGuestEnv(hostdir, work);
  if (guestEnv === undefined)
    throw refuseAdoption(
      work.dir,
      `neither it nor ${hostdir} has a ${HOST.guestEnv}`,
      "write its settings there",
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
    `adopted the working files in ${work.dir}; until the guest has powered itself off once, a snapshot is as after a power cut`,
  );
}

function noWork(hostdir: string, message: string): VmError {
  requireVm(hostdir);
  return new VmError("noInput", message, { hint: hintForWork(hostdir) });
}

const refuseAdoption = (path: string, reason: string, hint: string): VmError =>
  new VmError("io", `cannot adopt ${path}: ${reason}`, { hint });

/** Working files without a mark, or undefined when these carry one. @throws 66 where there are none */
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
    throw refuseAdoption(link, "it is not a symbolic link of this user", "move it out of the way");
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

/** The directory behind `.work` is the caller's, and no other VM's. */
function requireOwnWork(hostdir: string, dir: string): void {
  const stats = lstatSync(dir);
  if (!stats.isDirectory())
    throw refuseAdoption(dir, "it is not a directory", "move the link .work out of the way");
  const reason = foreignReason(stats);
  if (reason !== undefined)
    throw refuseAdoption(
      dir,
      `it ${reason}`,
      ownedByUs(stats) ? `chmod go-w ${shellQuote(dir)}` : "act as that user",
    );
  const back = join(dir, WORK.hostLink);
  const backStats = lstatOf(back);
  if (!backStats) return;
  if (!backStats.isSymbolicLink() || !ownedByUs(backStats))
    throw refuseAdoption(back, "it is not a symbolic link of this user", "move it out of the way");
  const named = readlinkSync(back);
  // Where nothing is there any more, this VM's directory was moved.
  if (realPath(back) !== realPath(hostdir) && lstatOf(resolve(dir, named)))
    throw refuseAdoption(
      dir,
      `the working files belong to the VM in ${named}`,
      `if this is a copy of that VM, remove the link: rm ${shellQuote(join(hostdir, HOST.workLink))}`,
    );
}

/** @throws 66 for a disk that is missing, 74 for one that cannot be the VM's, or is damaged */
async function requireGoodDisk(hostdir: string, dir: string, name: string): Promise<void> {
  const path = join(dir, name);
  const stats = lstatOf(path);
  if (!stats)
    throw new VmError("noInput", `cannot adopt ${dir}: the disk ${name} is missing`, {
      hint: `IMAGES in ${HOST.guestEnv} names it`,
    });
  requireRegularDisk(path);
  if (!ownedByUs(stats)) throw refuseAdoption(path, "it belongs to another user", "act as that user");
  const { format, refersTo, backingName } = readImageHeader(path);
  if (format !== "qcow2" || refersTo === "data file")
    throw refuseAdoption(
      path,
      refersTo ? "it refers to an external data file" : `it is ${format}, not qcow2`,
      "convert it: qemu-img convert -O qcow2",
    );
  const snapshot = parseBackingName(backingName, name);
  if (refersTo && snapshot === undefined)
    throw refuseAdoption(
      path,
      `it refers to an external backing file (${backingName})`,
      "merge that into it: qemu-img rebase -b ''",
    );
  const base =
    snapshot === undefined ? undefined : findSnapshotImage(join(hostdir, HOST.backups), snapshot, name);
  try {
    await checkImage({ format, path, base });
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    throw new VmError("io", `cannot adopt ${dir}: ${error.message}`, {
      cause: error,
      hint: `repair it: qemu-img check -r all ${shellQuote(path)}; or move the link .work away, and restore a snapshot`,
    });
  }
}

/** What was found, for people. */
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

/** Writes the mark, and both links last: interrupted before, it can be run again. */
function markAdopted(
  hostdir: string,
  { dir, inplace, mark: found }: Workdir,
  disks: readonly string[],
): void {
  const owns = inplace ? { owns: listDirectory(dir).filter(isWorkingFile) } : {};
  // The earlier program left them to the umask.
  if (!inplace) chmodSync(dir, 0o700);
  if (!lstatOf(join(dir, WORK.mark))) writeMark(dir, { ...found, ...owns, disks: [...disks] });
  replaceSymlink(join(dir, WORK.hostLink), inplace ? "." : hostdir);
  if (inplace) replaceSymlink(join(hostdir, HOST.workLink), ".");
  syncDirectory(dir);
  syncDirectory(hostdir);
}
