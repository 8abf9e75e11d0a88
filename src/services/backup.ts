import { mkdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration, formatTimestamp } from "../lib/time.ts";
import { exec } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import type { ReadImage } from "../machine/types.ts";
import { convertImage, imageInfo, measureImage } from "../qemu/img.ts";
import {
  afterCommit,
  allocatedBytes,
  fileError,
  listDirectory,
  lstatOf,
  readSmallBytes,
  remove,
  removeQuietly,
  replaceFile,
  requireRoom,
  swingLink,
  syncDirectory,
  writeNew,
} from "../store/files.ts";
import { compressFiles, type CopyJob } from "../store/gz.ts";
import { defaultsName, HOST, isDiskName, LAST, PARTIAL, SNAPSHOT, WORK } from "../store/layout.ts";
import type { Manifest, StoredFile } from "../store/manifest.ts";
import { consistencyOf } from "../store/mark.ts";
import type { Context } from "./context.ts";
import { ownDisks, refuseRunning } from "./in-use.ts";
import { requireOwnDisk } from "./linked.ts";
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
    const sources = listSources(work);
    const staged = join(backups, `${PARTIAL}${snapshot}`);
    let summary: string;
    try {
      mkdirSync(backups, { recursive: true, mode: 0o700 });
      await checkRoom(vm, sources, backups);
      mkdirSync(staged, { mode: 0o700 });
      summary = await fillSnapshot(context, vm, work, sources, staged, snapshot, description);
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

/** A working file that a snapshot holds compressed. */
interface Source {
  name: string;
  path: string;
  /** The image that a disk lies over: the snapshot holds what is on both. */
  base: ReadImage | undefined;
}

/** Disks, NVRAM, cloud-init's volume. @throws 74 for a disk that refers to other files, unless we made it so */
function listSources(work: Present): Source[] {
  const { dir } = work;
  const disks = ownDisks(dir).map((name) => {
    const path = join(dir, name);
    return { name, path, base: requireOwnDisk(work, path) };
  });
  const others = [WORK.efivars, WORK.seed].filter((name) => lstatOf(join(dir, name)));
  return [...disks, ...others.map((name) => ({ name, path: join(dir, name), base: undefined }))];
}

async function checkRoom(vm: Vm, sources: readonly Source[], backups: string): Promise<void> {
  let copies = 0;
  let needed = 0;
  for (const { path, base } of sources)
    if (base) copies += (await measureImage({ format: "qcow2", path }, base)).neededBytes;
    else needed += allocatedBytes(statSync(path));
  needed += copies;
  const last = listSnapshots(vm.hostdir).findLast((item) => item.manifest)?.manifest?.files ?? [];
  const before = last.reduce((sum, file) => sum + file.allocatedBytes, 0);
  const stored = last.reduce((sum, file) => sum + file.storedBytes, 0);
  const ratio = before > 0 ? stored / before : USUAL_RATIO;
  requireRoom(backups, copies + Math.ceil(needed * Math.min(ratio, 1)), "make the snapshot");
}

async function fillSnapshot(
  context: Context,
  vm: Vm,
  work: Present,
  listed: readonly Source[],
  staged: string,
  snapshot: string,
  description: string | undefined,
): Promise<string> {
  const started = performance.now();
  const made = new Date();
  const sources = await mergeBases(context, listed, staged);
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
  for (const { path, base } of sources) if (base) remove(path);
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

/** Copies each disk that lies over an image, with what is in that: a snapshot stands alone. */
async function mergeBases(context: Context, sources: readonly Source[], staged: string): Promise<Source[]> {
  const merged: Source[] = [];
  for (const source of sources) {
    const { name, path, base } = source;
    const copy = join(staged, `${PARTIAL}${name}`);
    if (base) {
      const { size } = statSync(path);
      const meter = context.meter(`merge ${name}`, size);
      const image: ReadImage = { format: "qcow2", path };
      await convertImage(image, copy, (part) => meter.update(part * size), base).finally(() =>
        meter.finish(),
      );
    }
    merged.push(base ? { ...source, path: copy } : source);
  }
  return merged;
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
  const virtualBytes = isDiskName(name) ? (await imageInfo(job.from))?.["virtual-size"] : undefined;
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
