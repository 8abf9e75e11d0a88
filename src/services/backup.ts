import { mkdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration, formatTimestamp } from "../lib/time.ts";
import { exec } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { refuseForeignParts } from "../qemu/image-header.ts";
import { imageInfo } from "../qemu/img.ts";
import {
  afterCommit,
  allocatedBytes,
  fileError,
  listDirectory,
  lstatOf,
  readSmallBytes,
  removeQuietly,
  replaceFile,
  requireRoom,
  swingLink,
  syncDirectory,
  writeNew,
} from "../store/files.ts";
import { compressFiles, type CopyJob } from "../store/gz.ts";
import { defaultsName, HOST, LAST, PARTIAL, SNAPSHOT, WORK } from "../store/layout.ts";
import type { Manifest, StoredFile } from "../store/manifest.ts";
import { consistencyOf } from "../store/mark.ts";
import type { Context } from "./context.ts";
import { ownDisks, refuseRunning } from "./in-use.ts";
import { requireWork, withVm, type Present, type Vm } from "./open.ts";
import { listSnapshots, nextSnapshotName } from "./snapshots.ts";

/** What a gz snapshot of a system disk usually takes of it; nobody can know before. */
const USUAL_RATIO = 0.3;

/**
 * Makes a snapshot of a VM that is off.
 * @param lockWaitMs how long another command's change may still take
 * @throws 75 while it runs, 73 when the name is taken or there is no room
 */
export async function backupVm(
  context: Context,
  name?: string,
  description?: string,
  lockWaitMs?: number,
): Promise<void> {
  const make = async (vm: Vm): Promise<void> => {
    const work = requireWork(vm, "back up");
    const snapshot = name ?? nextSnapshotName(vm.hostdir);
    const backups = join(vm.hostdir, HOST.backups);
    if (lstatOf(join(backups, snapshot)))
      throw new VmError("cannotCreate", `the snapshot ${snapshot} exists already`, {
        hint: "choose another name, or none for the next free one",
      });
    await refuseRunning(work, "back up");
    for (const disk of ownDisks(work.dir)) refuseForeignParts(join(work.dir, disk));
    const staged = join(backups, `${PARTIAL}${snapshot}`);
    let summary: string;
    try {
      mkdirSync(backups, { recursive: true, mode: 0o700 });
      checkRoom(vm, work, backups);
      mkdirSync(staged, { mode: 0o700 });
      summary = await fillSnapshot(context, vm, work, staged, snapshot, description);
      throwIfInterrupted();
      syncDirectory(staged);
      renameSync(staged, join(backups, snapshot));
    } catch (error) {
      removeQuietly(staged);
      throw fileError(`cannot make the snapshot ${snapshot}`, error);
    }
    const finish = (): void => {
      syncDirectory(backups);
      swingLink(join(backups, LAST), snapshot);
      syncDirectory(backups);
      keepHostFiles(context, vm, work);
    };
    afterCommit(`the snapshot ${snapshot} is whole`, finish, `see that ${LAST} in ${backups} leads to it`);
    log.success(summary);
  };
  await withVm(context, "back up", make, lockWaitMs);
}

/** Working files that a snapshot holds compressed: disks, NVRAM. */
function storedFiles(work: Present): { name: string; path: string }[] {
  const names = ownDisks(work.dir);
  if (lstatOf(join(work.dir, WORK.efivars))) names.push(WORK.efivars);
  return names.map((name) => ({ name, path: join(work.dir, name) }));
}

function checkRoom(vm: Vm, work: Present, backups: string): void {
  const needed = storedFiles(work).reduce((sum, { path }) => sum + allocatedBytes(statSync(path)), 0);
  const last = listSnapshots(vm.hostdir).findLast((item) => item.manifest)?.manifest?.files ?? [];
  const before = last.reduce((sum, file) => sum + file.allocatedBytes, 0);
  const stored = last.reduce((sum, file) => sum + file.storedBytes, 0);
  const ratio = before > 0 ? stored / before : USUAL_RATIO;
  requireRoom(backups, Math.ceil(needed * Math.min(ratio, 1)), "make the snapshot");
}

async function fillSnapshot(
  context: Context,
  vm: Vm,
  work: Present,
  staged: string,
  snapshot: string,
  description: string | undefined,
): Promise<string> {
  const started = performance.now();
  const made = new Date();
  const sources = storedFiles(work);
  const jobs: CopyJob[] = sources.map(({ name, path }) => ({
    name,
    from: path,
    to: join(staged, name + SNAPSHOT.gz),
    bytes: statSync(path).size,
  }));
  const total = jobs.reduce((sum, job) => sum + job.bytes, 0);
  warnAboutOthers(vm, sources.length);
  const meter = context.meter(`backup ${snapshot}`, total);
  try {
    await compressFiles(jobs, vm.settings.PIGZ_LEVEL, (done) => meter.update(done));
  } finally {
    meter.finish();
  }
  const files = await Promise.all(jobs.map((job, index) => describeFile(job, sources[index]!.name)));
  const consistency = consistencyOf(work.mark);
  const manifest: Manifest = {
    version: 1,
    format: "gz",
    tool: `vm ${context.version}`,
    guest: vm.settings.GUESTNAME,
    made: made.toISOString(),
    consistency,
    firstTime: lstatOf(join(work.dir, WORK.firstTime)) !== undefined,
    files,
  };
  for (const name of [WORK.guestEnv, defaultsName(context.prog)]) {
    const content = readSmallBytes(join(work.dir, name)) ?? readSmallBytes(join(vm.hostdir, name));
    if (content !== undefined) writeNew(join(staged, name), content);
  }
  writeNew(join(staged, SNAPSHOT.description), description === undefined ? "" : `${description}\n`);
  writeNew(join(staged, SNAPSHOT.timestamp), `${formatTimestamp(made)}\n`);
  writeNew(join(staged, SNAPSHOT.manifest), `${JSON.stringify(manifest, null, 2)}\n`);
  await writeSums(staged);
  if (consistency === "crash")
    log.warn("the guest did not power itself off last time: the snapshot is as after a power cut");
  const stored = files.reduce((sum, file) => sum + file.storedBytes, 0);
  const seconds = (performance.now() - started) / 1000;
  return `snapshot ${snapshot}: ${formatSize(total)} in ${formatSize(stored)}, ${formatDuration(seconds)}`;
}

function warnAboutOthers({ settings }: Vm, own: number): void {
  const others = settings.IMAGES.filter((image) => !/^disk-\d+\.img$/.test(image.path));
  if (others.length > 0)
    log.warn(
      `not in the snapshot, being no files of this VM: ${others.map((image) => image.path).join(", ")}`,
    );
  if (own === 0) log.warn("this VM has no disks of its own: the snapshot holds its settings only");
}

async function describeFile(job: CopyJob, name: string): Promise<StoredFile> {
  const stats = statSync(job.from);
  const virtualBytes = name === WORK.efivars ? undefined : (await imageInfo(job.from))?.["virtual-size"];
  return {
    name,
    file: name + SNAPSHOT.gz,
    bytes: stats.size,
    allocatedBytes: allocatedBytes(stats),
    storedBytes: statSync(job.to).size,
    ...(virtualBytes === undefined ? {} : { virtualBytes }),
  };
}

/** SHA-256 of every file, written last: `sha256sum -c SHA256SUMS` verifies the snapshot anywhere. */
async function writeSums(staged: string): Promise<void> {
  const names = listDirectory(staged).toSorted();
  // By way of us, for sha256sum does not say why it cannot write.
  const { stdout } = await exec(["sha256sum", "--", ...names], {
    cwd: staged,
    what: "cannot compute checksums",
  });
  writeNew(join(staged, SNAPSHOT.sums), stdout);
}

/** [compat] HOSTDIR gets the settings where it has none. */
function keepHostFiles(context: Context, { hostdir }: Vm, work: Present): void {
  for (const name of [HOST.guestEnv, defaultsName(context.prog)]) {
    const target = join(hostdir, name);
    const content = readSmallBytes(join(work.dir, name));
    if (content !== undefined && !lstatOf(target)) replaceFile(target, content);
  }
}
