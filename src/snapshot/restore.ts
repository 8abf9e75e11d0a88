import { mkdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log, snapshotName } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration, formatTimestamp } from "../lib/time.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { refuseExternalReference } from "../qemu/image-header.ts";
import { lstatOf, readSmallBytes } from "../lib/read-file.ts";
import { fileError, listDirectory, requireSpace, writeNew } from "../store/files.ts";
import { gzipLengthHint, unpackFiles, type CopyJob } from "../store/gz.ts";
import { recordEvent } from "../store/history.ts";
import { refuseStrayDisks } from "../store/claim.ts";
import {
  defaultsName,
  isDiskName,
  isStateName,
  LAST,
  SNAPSHOT,
  STATE,
  TPM_STATE,
  WORK,
  workingPath,
} from "../store/layout.ts";
import type { Identity } from "../store/identity.ts";
import { hasUsableState } from "../store/suspended.ts";
import { stageWork, type Stage } from "../store/stage.ts";
import { hasRam, type StoredFile } from "../store/manifest.ts";
import type { ArrivingRecord } from "../store/mark-types.ts";
import type { Context } from "../vm/context.ts";
import { carryIdentity, foreignUuid, readIdentity } from "../vm/identity.ts";
import { carryFormats } from "../vm/image-formats.ts";
import { refuseRunning, refuseSuspended } from "../vm/in-use.ts";
import type { Vm } from "../vm/find.ts";
import { carryLasting, readLasting } from "../vm/store-settings.ts";
import { findTmpdir } from "../vm/volatile.ts";
import { refuseTemplate } from "../vm/template.ts";
import { withVm } from "../vm/open.ts";
import { copyRam, damagedRam, findRamFile, isResumable, isUntouched, writeState } from "./restore-ram.ts";
import { damagedSnapshot, fillImages, listImages, measureCopies, sumRoots } from "./restore-images.ts";
import { findDamage, findOwnDamage, readSnapshotSettings } from "../store/snapshot-damage.ts";
import { chainOf, requireIntact } from "../store/snapshot-intact.ts";
import { findOversize, SMALL_FILES } from "../store/small-files.ts";
import { recordSnapshot } from "../store/snapshot-parent.ts";
import { findSnapshot, listSnapshots, type Snapshot } from "../store/snapshots.ts";
import { compareSums } from "../store/checksums.ts";

/** Arguments of `restore`. */
export interface RestoreRequest {
  /** Absent: LAST. */
  name?: string | undefined;
  /** Make standalone disks rather than overlays on the snapshot. */
  copy?: boolean | undefined;
  /** False: the disks without the RAM of the snapshot. */
  ram?: boolean | undefined;
  /** UUID of the VM in the repository; a directory without a UUID adopts it. */
  uuid?: string | undefined;
  /** The snapshot is in the repository, mounted: a directory whose `backups` has it. Its images are copied by the run. */
  from?: { hostdir: string; arriving: ArrivingRecord } | undefined;
}

/**
 * Replaces the working files with a snapshot.
 * @throws 66 if it does not exist, 73 without space, 74 if it is damaged, or if LAST is of another VM, 75 while the VM runs
 */
export async function restoreVm(context: Context, request: RestoreRequest = {}): Promise<void> {
  const use = (vm: Vm): Promise<void> => restoreSnapshot(context, vm, request);
  await withVm(context, "restore", use, { lenient: true });
}

/** The same under the VM's lock. `vm` is out of date afterwards: open it again. */
export async function restoreSnapshot(
  context: Context,
  vm: Vm,
  { name, copy = false, ram: wantsRam = true, uuid, from }: RestoreRequest = {},
): Promise<void> {
  const source = from?.hostdir ?? vm.hostdir;
  const snapshot = findSnapshot(source, name);
  if (snapshot.problem) throw snapshot.problem;
  const ram = wantsRam && hasRam(snapshot.manifest) && (await isResumable(context, vm, snapshot));
  const own = readIdentity(vm.hostdir);
  const lasting = readLasting(vm);
  refuseForeignSnapshot(snapshot, own, name !== undefined && name !== LAST, uuid);
  if (vm.work.state === "present") {
    refuseTemplate(vm, "restore");
    await refuseRunning(vm.work, "restore");
    // A state that cannot be resumed is no loss.
    if (!isUntouched(vm.work) && hasUsableState(vm.work.dir)) refuseSuspended(vm.work, "restore");
  }
  refuseStrayDisks(vm.hostdir, vm.work, "restore");
  log.info(`restoring ${snapshotName(snapshot.name)}, made ${formatTimestamp(snapshot.made)}`);
  // Before `listImages`, which reports a wrong name in a damaged header as a missing snapshot.
  requireUndamaged(source, snapshot, ram);
  const jobs = listStored(snapshot, ram);
  const images = listImages(source, snapshot);
  const inplace =
    context.options.settings.INPLACE === undefined && vm.work.state === "present"
      ? vm.work.inplace
      : vm.settings.INPLACE;
  const unpacked = jobs.reduce((sum, job) => sum + job.neededBytes, 0);
  const raw = ram ? (findRamFile(snapshot)?.allocatedBytes ?? 0) : 0;
  const data = copy ? await measureCopies(images) : from ? sumRoots(images) : 0;
  const needed = unpacked + raw + data;
  const tmpdir = findTmpdir(context, vm.work);
  requireSpace(
    inplace ? vm.hostdir : tmpdir,
    needed,
    `restore ${snapshot.name}`,
    inplace ? "snapshots" : "tmpdir",
  );
  const started = performance.now();
  // Copying would hide the damage, as nothing checks the copy.
  if (copy && images.length > 0)
    await requireIntact(chainOf(vm.hostdir, snapshot), {
      cannot: `cannot restore ${snapshot.name}`,
      hint: UNCHANGED,
      images: true,
    });
  const stage = stageWork(vm.hostdir, inplace ? "inplace" : { tmpdir }, vm.work);
  try {
    await fillStage(context, snapshot, jobs, stage);
    await fillImages(
      context,
      snapshot,
      images,
      stage.dir,
      copy ? "copy" : from ? WORK.repositoryLink : WORK.hostLink,
    );
    carryIdentity(stage.dir, own, uuid ?? snapshot.manifest?.vm);
    carryLasting(stage.dir, lasting);
    carryFormats(vm, stage.dir);
    const machine = ram ? writeState(snapshot, stage.dir) : undefined;
    throwIfInterrupted();
    const total = [...jobs, ...images].reduce(
      (sum, job) => sum + statSync(workingPath(stage.dir, job.name)).size,
      0,
    );
    const onSnapshot = copy || from || images.length === 0 ? undefined : recordSnapshot(snapshot);
    const dir = stage.commit({
      restored: snapshot.manifest?.consistency ?? "crash-consistent",
      ...(snapshot.manifest ? {} : { unrecorded: true as const }),
      ...(jobs.some(({ name: stored }) => stored === TPM_STATE) && { tpm: true as const }),
      ...(onSnapshot && { onSnapshot }),
      ...(from && { arriving: from.arriving }),
      ...machine,
    });
    const seconds = (performance.now() - started) / 1000;
    log.success(
      `restored ${snapshotName(snapshot.name)} to ${dir}: ${formatSize(total)}, ${formatDuration(seconds)}`,
    );
    recordEvent(context, vm.hostdir, { event: "restored", snapshot: snapshot.name });
    if (ram)
      log.info(
        `  with RAM: the next run resumes the guest as of then: ${commandLine("run")}; to boot it: ${commandLine("run", "--boot")}`,
      );
  } catch (error) {
    stage.abort();
    throw fileError(`cannot restore ${snapshot.name}`, error, FREE_SPACE);
  }
}

/**
 * Refuses a snapshot of another VM, unless it was named.
 * @param fetched UUID under which it was fetched from the repository; that was reported already
 * @throws 74 naming both UUIDs
 */
function refuseForeignSnapshot(
  { name, manifest }: Snapshot,
  own: Identity,
  named: boolean,
  fetched: string | undefined,
): void {
  const other = foreignUuid(own, manifest?.vm);
  if (other === undefined) return;
  const what = `${name} is a snapshot of another VM (UUID ${other}, not ${own.uuid})`;
  if (!named)
    throw new VmError("io", `cannot restore ${what}`, {
      hint: `restore it nevertheless: ${commandLine("restore", name)}\nlist the others: ${commandLine("snapshots")}`,
    });
  if (fetched === undefined) log.warn(`${what}: this one keeps its own UUID`);
}

/**
 * Quick check before a restore. Settings that match their checksum but that this version rejects are restored, with a
 * warning.
 * @throws 74 if it is damaged
 */
export function requireUndamaged(hostdir: string, snapshot: Snapshot, ram: boolean): void {
  const known = new Map(listSnapshots(hostdir).map((item) => [item.name, item]));
  const find = (name: string): Snapshot | undefined => known.get(name);
  // Its disks need only those of its parents.
  const damage = findDamage(snapshot, find, { ram: false });
  if (damage !== undefined) throw damagedSnapshot(snapshot, damage);
  const own = ram ? findOwnDamage(snapshot) : undefined;
  if (own !== undefined) throw damagedRam(snapshot, own);
  for (const { file, line, message } of readSnapshotSettings(snapshot)?.complaints ?? [])
    log.warn(`${file}:${line}: ${message}; the VM cannot run until this is corrected`);
}

const FREE_SPACE = "free some space and run the command again; working files unchanged";
const UNCHANGED = "working files unchanged; try an older snapshot";

export interface RestoreJob extends Omit<CopyJob, "to"> {
  neededBytes: number;
}

/** Refuses a disk that the manifest does not name: it was added later. */
function refuseUnknownDisks({ name, dir, manifest }: Snapshot): void {
  const known = manifest?.files.map((item) => item.file);
  const unknown = listDirectory(dir).find(
    (file) =>
      isDiskName(file.slice(0, -SNAPSHOT.gz.length)) &&
      file.endsWith(SNAPSHOT.gz) &&
      known?.includes(file) === false,
  );
  if (unknown !== undefined)
    throw new VmError("io", `the snapshot ${name} is damaged: ${unknown} is not one of its disks`);
}

/**
 * The gzip files of a snapshot, of this program or of the earlier one.
 * @param ram includes the state of a running guest
 */
export function listStored(snapshot: Snapshot, ram = false): RestoreJob[] {
  refuseUnknownDisks(snapshot);
  const names = snapshot.manifest
    ? snapshot.manifest.files.map((item) => item.file)
    : listDirectory(snapshot.dir).filter((name) => name.endsWith(SNAPSHOT.gz));
  return names.flatMap((file) => {
    if (!file.endsWith(SNAPSHOT.gz)) return [];
    const name = file.slice(0, -SNAPSHOT.gz.length);
    if (!isDiskName(name) && !SMALL_FILES.has(name) && !(ram && isStateName(name))) return [];
    const from = join(snapshot.dir, file);
    const stats = lstatOf(from);
    if (!stats?.isFile())
      throw new VmError(
        "io",
        `the snapshot ${snapshot.name} is damaged: ${file} is missing or no regular file`,
      );
    const known = snapshot.manifest?.files.find((item) => item.file === file);
    if (known && known.storedBytes !== stats.size)
      throw new VmError(
        "io",
        `the snapshot ${snapshot.name} is damaged: ${file} has ${stats.size} bytes instead of ${known.storedBytes}`,
      );
    const excess = known && findOversize(name, known.bytes);
    if (excess !== undefined)
      throw new VmError("io", `the snapshot ${snapshot.name} is damaged: ${file}: ${excess}`);
    const neededBytes = known?.allocatedBytes ?? Math.max(stats.size, gzipLengthHint(from));
    return [{ name, from, bytes: stats.size, neededBytes }];
  });
}

/**
 * @param mapsRam RAM that is stored as it is will be mapped from the snapshot, and is not copied
 * @param doing what the progress line says
 */
export async function fillStage(
  context: Context,
  snapshot: Snapshot,
  jobs: readonly RestoreJob[],
  stage: Pick<Stage, "dir">,
  mapsRam = false,
  doing = "restore",
): Promise<void> {
  const total = jobs.reduce((sum, job) => sum + job.bytes, 0);
  const meter = context.meter(`${doing} ${snapshot.name}`, total);
  const stop = new AbortController();
  // Both read the same files: the second one reads the page cache.
  const ram = jobs.some(({ name }) => isStateName(name));
  const verified = verifyStored(snapshot, { ram, mapsRam }, stop.signal);
  verified.catch(() => {});
  try {
    for (const dir of new Set(jobs.map(({ name }) => dirname(workingPath(stage.dir, name)))))
      if (dir !== stage.dir) mkdirSync(dir, { mode: 0o700 });
    await unpackFiles(
      jobs.map((job) => ({ ...job, to: workingPath(stage.dir, job.name) })),
      (done) => meter.update(done),
    );
    if (ram && !mapsRam && findRamFile(snapshot)) await copyRam(snapshot, stage.dir);
    await verified;
  } catch (error) {
    stop.abort();
    await verified.catch(() => {});
    throw error;
  } finally {
    meter.finish();
  }
  for (const { name, from } of jobs)
    if (isDiskName(name)) refuseExternalReference(join(stage.dir, name), from);
  checkLengths(snapshot, jobs, stage);
  for (const name of [WORK.guestEnv, defaultsName(context.prog)]) {
    const content = readSmallBytes(join(snapshot.dir, name));
    if (content !== undefined) writeNew(join(stage.dir, name), content);
  }
  for (const name of [WORK.in, WORK.out]) mkdirSync(join(stage.dir, name), { mode: 0o700 });
  if (snapshot.manifest?.firstTime) writeNew(join(stage.dir, WORK.firstTime), "");
}

function checkLengths(snapshot: Snapshot, jobs: readonly RestoreJob[], stage: Pick<Stage, "dir">): void {
  for (const { name } of jobs) {
    const bytes = snapshot.manifest?.files.find((item) => item.name === name)?.bytes;
    if (bytes !== undefined && statSync(workingPath(stage.dir, name)).size !== bytes)
      throw damagedSnapshot(snapshot, `${name} does not decompress to ${bytes} bytes`);
  }
}

/**
 * Verifies the checksums of all files except qcow2 images, and RAM that is mapped.
 * @param ram includes the state of a running guest
 * @throws 74 naming the wrong ones
 */
async function verifyStored(
  snapshot: Snapshot,
  { ram, mapsRam }: { ram: boolean; mapsRam: boolean },
  signal: AbortSignal,
): Promise<void> {
  const { dir, manifest } = snapshot;
  if (!lstatOf(join(dir, SNAPSHOT.sums))) {
    if (manifest) throw damagedSnapshot(snapshot, `it has no ${SNAPSHOT.sums}`);
    log.info("  made by the earlier program: it has no checksums, only gzip's own");
    return;
  }
  const sizes = new Map(manifest?.files.map(({ file, storedBytes }) => [file, storedBytes]));
  const isRead = ({ name, file }: StoredFile): boolean =>
    isStateName(name) ? ram && !(mapsRam && file === STATE.ram) : file.endsWith(SNAPSHOT.gz);
  const unread = new Set(manifest?.files.flatMap((item) => (isRead(item) ? [] : [item.file])));
  const wrong = await compareSums(dir, {
    sizes,
    signal,
    only: (name) => !unread.has(name),
  });
  if (wrong.length > 0) throw (wrong.every(namesState) ? damagedRam : damagedSnapshot)(snapshot, ...wrong);
}

/** Is an error of `compareSums` one of the state of a running guest? */
const namesState = (line: string): boolean => line.startsWith("state.");
