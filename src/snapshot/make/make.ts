import { mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { log, snapshotName } from "../../lib/log.ts";
import { formatSize } from "../../lib/size.ts";
import { formatDuration } from "../../lib/time.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { type Consistency, consistencyOf, explainCrash } from "../../store/mark-types.ts";
import { noteIntactRam } from "../../store/ram-intact.ts";
import { remove } from "../../store/remove.ts";
import { afterCommit, fileError, removeQuietly, replaceSymlink, syncDirectory } from "../../store/files.ts";
import { HOST, isDiskName, LAST, PARTIAL, STATE, WORK } from "../../store/layout.ts";
import type { SnapshotFormat } from "../../machine/types.ts";
import { hasRam, type Manifest, type StoredFile } from "../../store/manifest.ts";
import { updateMark } from "../../store/mark.ts";
import { isListening } from "../../process/unix-socket.ts";
import type { Context } from "../../vm/context.ts";
import { refuseRunning } from "../../vm/in-use.ts";
import { repairDiskBitmaps } from "../../vm/backing-file.ts";
import { requireIntactBackingFiles } from "../../vm/backing-snapshot.ts";
import { requireWork, type Vm } from "../../vm/find.ts";
import { withWholeVm } from "../../vm/open.ts";
import { checkTpmForBackup } from "../../vm/tpm-state.ts";
import { allowBackup } from "../../store/suspended.ts";
import { isSuspended } from "../../store/is-suspended.ts";
import { type Workdir } from "../../store/workdir.ts";
import { isApart, makeBackups, nameTaken, nextSnapshotName } from "../../store/snapshots.ts";
import { requireIntactDisks, requireDisks, warnAboutInternalSnapshots } from "./check-disks.ts";
import { describeSnapshotFiles, keepHostFiles } from "./describe.ts";
import { requireSpaceForGz, storeGz } from "./gz.ts";
import { describeMachine, requirePid, stateSources, storeRam } from "./ram.ts";
import { listSources } from "./sources.ts";
import type { DiskSource, Source } from "../../live/disk-source.ts";
import { machineDirectory } from "../../live/ram.ts";
import { isUnattended } from "../../process/unattended.ts";

export interface BackupRequest {
  name?: string | undefined;
  description?: string | undefined;
  /** Absent: SNAPSHOT_FORMAT. */
  format?: SnapshotFormat | undefined;
  /** Not incremental. */
  full?: boolean | undefined;
  /** With the RAM of the running guest. */
  ram?: boolean | undefined;
  /** Limit for reading disks, in bytes per second; absent: no limit. */
  rateLimit?: number | undefined;
  /** How long to wait for the VM's lock. */
  lockWaitMs?: number | undefined;
}

/** A new snapshot. */
export interface Made {
  /** As it was at the time of the snapshot. */
  vm: Vm;
  name: string;
  parent: string | undefined;
  /** Includes the guest's RAM. */
  ram: boolean;
  /** Size of the VM's files, and of the snapshot's. */
  heldBytes: number;
  storedBytes: number;
  seconds: number;
  /** Why it was not pushed to the repository, as it should have been. */
  notPushed?: unknown;
}

/**
 * Creates a snapshot of the VM, running or off; a running guest keeps running.
 * @throws 75 if another process has its disks open, 73 if the name is taken or without space
 */
export const backupVm = (context: Context, request: BackupRequest = {}): Promise<Made> =>
  withWholeVm(context, "back up", (vm) => makeSnapshot(context, vm, request), { waitMs: request.lockWaitMs });

async function makeSnapshot(context: Context, vm: Vm, request: BackupRequest): Promise<Made> {
  const started = performance.now();
  const work = requireWork(vm, "back up");
  const name = request.name ?? nextSnapshotName(vm.hostdir);
  const backups = join(vm.hostdir, HOST.backups);
  const taken = nameTaken(vm.hostdir, name);
  if (taken) throw taken;
  const format = request.format ?? vm.settings.SNAPSHOT_FORMAT;
  const live = await isLive(work);
  const ramOf = request.ram ? requirePid(vm, work, live) : undefined;
  if (live) {
    const { resumeIfSpace } = await import("../../vm/resume.ts");
    await resumeIfSpace(work);
  }
  const named = vm.settings.IMAGES.map(({ path }) => path).filter(isDiskName);
  requireDisks(work, named);
  checkTpmForBackup(vm, work, live);
  const sources = listSources(work);
  if (!live) repairBitmaps(sources);
  await requireIntactDisks(sources, { live, low: isUnattended() });
  warnAboutOthers(vm, work, sources);
  warnAboutInternalSnapshots(sources, format, live);
  const staged = join(backups, `${PARTIAL}${name}`);
  let stored: Stored;
  try {
    makeBackups(vm.hostdir);
    mkdirSync(staged, { mode: 0o700 });
    const making: Making = { context, vm, work, sources, staged, name, request, live, ramOf };
    const now = new Date();
    stored = await (format === "qcow2" ? storeQcow2(making) : storeAllGz(making));
    if (!live && stored.consistency === "crash-consistent")
      log[work.mark.unrecorded && work.mark.lastRun === undefined ? "info" : "warn"](
        `${explainCrash(work.mark)}: the snapshot counts as crash-consistent, as after a power cut`,
      );
    await describeSnapshotFiles(context, vm, work, staged, { made: now, text: request.description }, stored);
    throwIfInterrupted();
    syncDirectory(staged);
    renameSync(staged, join(backups, name));
  } catch (error) {
    removeQuietly(staged);
    throw fileError(`cannot create the snapshot ${name}`, error);
  }
  const finish = (): void => {
    syncDirectory(backups);
    replaceSymlink(join(backups, LAST), name);
    syncDirectory(backups);
    keepHostFiles(context, vm, work);
    const apart = isApart(vm.hostdir);
    if ((work.mark.backupsApart ?? false) !== apart)
      updateMark(work.dir, { backupsApart: apart || undefined });
  };
  afterCommit(`the snapshot ${name} is complete`, finish, `check that ${LAST} in ${backups} points to it`);
  const { files, parent } = stored;
  const ram = hasRam(stored);
  if (ram && format === "qcow2") noteIntactRam(join(backups, name), context.cacheDirectory);
  const made: Made = {
    vm,
    name,
    parent,
    ram,
    heldBytes: files.reduce((sum, file) => sum + occupiedOf(file), 0),
    storedBytes: files.reduce((sum, file) => sum + addedOf(file), 0),
    seconds: (performance.now() - started) / 1000,
  };
  log.success(`snapshot ${summarize({ ...made, name: snapshotName(made.name) })}`);
  return made;
}

/** Without the holes of RAM. */
const occupiedOf = ({ name, bytes, allocatedBytes }: StoredFile): number =>
  name === STATE.ram ? allocatedBytes : bytes;
const addedOf = (item: StoredFile): number => (item.file === STATE.ram ? occupiedOf(item) : item.storedBytes);

/** Does the VM run, with its monitor? @throws 75 if another process has its disks open */
async function isLive(work: Workdir): Promise<boolean> {
  if (await isListening(join(work.dir, WORK.qmp))) return true;
  await refuseRunning(work, "back up");
  return false;
}

/** A snapshot in progress. */
interface Making {
  context: Context;
  vm: Vm;
  work: Workdir;
  sources: Source[];
  staged: string;
  name: string;
  request: BackupRequest;
  /** The VM is running. */
  live: boolean;
  /** Pid of the qemu whose RAM is saved, too. */
  ramOf: number | undefined;
}

type Stored = Pick<Manifest, "format" | "id" | "parent" | "consistency" | "files" | "machine">;

async function storeAllGz(making: Making): Promise<Stored> {
  const { context, vm, work, sources, staged, name, request, live } = making;
  await requireSpaceForGz(vm, sources, staged, live);
  const layered = sources.filter(({ base }) => base).map(({ path }) => path);
  await requireIntactBackingFiles(vm, layered, { low: isUnattended() });
  if (live) return storeLiveGz(making);
  const files = await storeGz(context, vm, sources, staged, name, request.rateLimit);
  return { format: "gz", consistency: consistencyOf(work.mark), files };
}

/** Copies the point in time to files for pigz, so that copy-before-write ends before the compression. */
async function storeLiveGz({
  context,
  vm,
  work,
  sources,
  staged,
  name,
  request,
  ramOf,
}: Making): Promise<Stored> {
  const { openLive } = await import("../../live/source.ts");
  const { copyPointInTime } = await import("./images.ts");
  const source = await openLive(work, sources, staged, ramOf);
  let consistency: Consistency;
  let copies: Source[];
  try {
    ({ consistency, copies } = await copyPointInTime(
      context,
      sources,
      source,
      staged,
      name,
      request.rateLimit ?? 0,
    ));
  } catch (error) {
    throw await source.explain(error);
  } finally {
    await source.close();
  }
  const all = [...copies, ...(ramOf === undefined ? [] : stateSources(staged))];
  const files = await storeGz(context, vm, all, staged, name, request.rateLimit);
  for (const { path } of copies) remove(path);
  remove(machineDirectory(staged));
  return { format: "gz", consistency, files, ...savedMachine(work, source) };
}

/** A backup of a suspended VM changes bitmaps in its disks, and nothing else. */
async function storeQcow2(making: Making): Promise<Stored> {
  if (making.live || !isSuspended(making.work.dir)) return storeImagesOf(making);
  using _allowed = allowBackup(making.work.dir);
  return await storeImagesOf(making);
}

async function storeImagesOf({
  context,
  vm,
  work,
  sources,
  staged,
  name,
  request,
  live,
  ramOf,
}: Making): Promise<Stored> {
  const { storeImages } = await import("./images.ts");
  const source = live
    ? await (await import("../../live/source.ts")).openLive(work, sources, staged, ramOf)
    : await (
        await import("./offline-source.ts")
      ).openOffline(context, vm, work, sources, staged, isUnattended());
  let stored;
  try {
    const asked = { full: request.full === true, live, speed: request.rateLimit ?? 0 };
    stored = await storeImages({ context, vm, sources, staged, snapshot: name, ...asked }, source);
  } catch (error) {
    throw await source.explain(error);
  } finally {
    await source.close();
    if (!live) repairBitmaps(sources);
  }
  const { id, parent, consistency } = stored;
  const copies = live ? (await import("../../live/source.ts")).copiedSources(sources, staged) : sources;
  const small = copies.filter(({ disk }) => !disk);
  const state = ramOf === undefined ? [] : stateSources(staged).filter((item) => item.name !== STATE.ram);
  const files = [...stored.files, ...(await storeGz(context, vm, [...small, ...state], staged, name))];
  if (live) for (const { path } of small) remove(path);
  if (ramOf !== undefined) files.push(await storeRam(staged));
  remove(machineDirectory(staged));
  const which = { id, ...(parent === undefined ? {} : { parent }) };
  return { format: "qcow2", ...which, consistency, files, ...savedMachine(work, source) };
}

const savedMachine = (work: Workdir, { machine }: DiskSource): Pick<Manifest, "machine"> =>
  machine ? { machine: describeMachine(work, machine) } : {};

/** qemu exits without an error if it cannot write its bitmaps. */
function repairBitmaps(sources: readonly Source[]): void {
  for (const { path, disk } of sources) if (disk) repairDiskBitmaps(path);
}

function warnAboutOthers({ settings }: Vm, { dir }: Workdir, sources: readonly Source[]): void {
  const others = settings.IMAGES.filter((image) => !/^disk-\d+\.img$/.test(image.path));
  if (others.length > 0)
    log.warn(
      `not in the snapshot, as they are not files of this VM: ${others.map((image) => image.path).join(", ")}`,
    );
  if (!sources.some(({ disk }) => disk))
    log.warn("this VM has no disks of its own: the snapshot contains only its settings");
  if (settings.UEFI && !sources.some(({ name }) => name === WORK.efivars))
    log.warn(
      `the snapshot has no UEFI variables: ${join(dir, WORK.efivars)} is missing; the next run starts with new ones, without boot entries`,
    );
}

/** `S1: 4.0 GiB in 604 MiB, 7.1 s`; `S2: incremental on S1, 17 MiB, 0.1 s` */
export function summarize({ name, parent, ram, heldBytes, storedBytes, seconds }: Made): string {
  const size = formatSize(storedBytes);
  const what =
    parent === undefined ? `${formatSize(heldBytes)} in ${size}` : `incremental on ${parent}, ${size}`;
  return `${name}: ${what}${ram ? ", with RAM" : ""}, ${formatDuration(seconds)}`;
}
