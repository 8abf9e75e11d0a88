import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { readAssignments } from "../config/literal.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration, formatTimestamp } from "../lib/time.ts";
import { parseImage } from "../machine/parse.ts";
import { ProcessError, type Child } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { refuseForeignParts } from "../qemu/image-header.ts";
import {
  fileError,
  listDirectory,
  lstatOf,
  readSmall,
  readSmallBytes,
  requireRoom,
  writeNew,
} from "../store/files.ts";
import { gzipLengthHint, unpackFiles, type CopyJob } from "../store/gz.ts";
import { refuseStrayDisks } from "../store/claim.ts";
import { defaultsName, isDiskName, SNAPSHOT, WORK } from "../store/layout.ts";
import { stageWork, type Stage } from "../store/stage.ts";
import type { Context } from "./context.ts";
import { carryFormats } from "./image-formats.ts";
import { refuseRunning } from "./in-use.ts";
import { withVm, type Vm } from "./open.ts";
import { fillImages, listImages, measureCopies } from "./restore-images.ts";
import { findSnapshot, type Snapshot } from "./snapshots.ts";
import { readSums, startSums } from "./sums.ts";

/** What is typed behind `restore`. */
export interface RestoreRequest {
  /** Absent: the last one. */
  name?: string | undefined;
  /** Disks that stand alone, where images of changes to the snapshot would do. */
  copy?: boolean | undefined;
}

/**
 * Puts a snapshot's state in the place of the working files.
 * @throws 66 without such a snapshot, 73 without room, 74 when it is damaged, 75 while the VM runs
 */
export async function restoreVm(context: Context, request: RestoreRequest = {}): Promise<void> {
  const use = (vm: Vm): Promise<void> => restoreSnapshot(context, vm, request);
  await withVm(context, "restore", use, { lenient: true });
}

/** The same for a VM whose lock is held already. What is known of the VM is out of date then: open it again. */
export async function restoreSnapshot(
  context: Context,
  vm: Vm,
  { name, copy = false }: RestoreRequest = {},
): Promise<void> {
  const snapshot = findSnapshot(vm.hostdir, name);
  if (snapshot.problem) throw snapshot.problem;
  if (vm.work.state === "present") await refuseRunning(vm.work, "restore");
  refuseStrayDisks(vm.hostdir, vm.work, "restore");
  log.info(`restoring ${snapshot.name}, made ${formatTimestamp(snapshot.made)}`);
  const jobs = listStored(snapshot);
  const images = listImages(vm.hostdir, snapshot);
  checkDisks(snapshot, [...jobs, ...images]);
  const inplace =
    context.options.settings.INPLACE === undefined && vm.work.state === "present"
      ? vm.work.inplace
      : vm.settings.INPLACE;
  const unpacked = jobs.reduce((sum, job) => sum + job.neededBytes, 0);
  const needed = unpacked + (copy ? await measureCopies(images) : 0);
  requireRoom(inplace ? vm.hostdir : context.tmpdir, needed, `restore ${snapshot.name}`);
  const started = performance.now();
  const stage = stageWork(vm.hostdir, inplace ? "inplace" : context, vm.work);
  try {
    await fillStage(context, snapshot, jobs, stage);
    await fillImages(context, snapshot, images, stage.dir, copy);
    carryFormats(vm, stage.dir);
    throwIfInterrupted();
    const total = [...jobs, ...images].reduce(
      (sum, job) => sum + statSync(join(stage.dir, job.name)).size,
      0,
    );
    const dir = stage.commit({ restored: snapshot.manifest?.consistency ?? "crash-consistent" });
    const seconds = (performance.now() - started) / 1000;
    log.success(`restored ${snapshot.name} to ${dir}: ${formatSize(total)}, ${formatDuration(seconds)}`);
  } catch (error) {
    stage.abort();
    throw fileError(`cannot restore ${snapshot.name}`, error);
  }
}

export interface RestoreJob extends Omit<CopyJob, "to"> {
  neededBytes: number;
}

/** A disk that the manifest does not name was put there by somebody else. */
function refuseUnknownDisks({ name, dir, manifest }: Snapshot): void {
  const known = manifest?.files.map((item) => item.file);
  const unknown = listDirectory(dir).find(
    (file) =>
      isDiskName(file.slice(0, -SNAPSHOT.gz.length)) &&
      file.endsWith(SNAPSHOT.gz) &&
      known?.includes(file) === false,
  );
  if (unknown !== undefined)
    throw new VmError("io", `the snapshot ${name} is damaged: ${unknown} is none of its disks`);
}

/** The files of a snapshot that pigz unpacks, whichever program made it. */
export function listStored(snapshot: Snapshot): RestoreJob[] {
  refuseUnknownDisks(snapshot);
  const names = snapshot.manifest
    ? snapshot.manifest.files.map((item) => item.file)
    : listDirectory(snapshot.dir).filter((name) => name.endsWith(SNAPSHOT.gz));
  return names.flatMap((file) => {
    if (!file.endsWith(SNAPSHOT.gz)) return [];
    const name = file.slice(0, -SNAPSHOT.gz.length);
    if (!isDiskName(name) && name !== WORK.efivars && name !== WORK.seed) return [];
    const from = join(snapshot.dir, file);
    const stats = lstatOf(from);
    if (!stats?.isFile())
      throw new VmError("io", `the snapshot ${snapshot.name} is damaged: ${file} is missing or no file`);
    const known = snapshot.manifest?.files.find((item) => item.file === file);
    if (known && known.storedBytes !== stats.size)
      throw new VmError(
        "io",
        `the snapshot ${snapshot.name} is damaged: ${file} has ${stats.size} bytes instead of ${known.storedBytes}`,
      );
    const neededBytes = known?.allocatedBytes ?? Math.max(stats.size, gzipLengthHint(from));
    return [{ name, from, bytes: stats.size, neededBytes }];
  });
}

/** A killed backup of the earlier program may lack whole disks: guest.env tells which there must be. */
function checkDisks(snapshot: Snapshot, jobs: readonly { name: string }[]): void {
  const text = readSmall(join(snapshot.dir, WORK.guestEnv));
  if (text === undefined) {
    if (!snapshot.manifest)
      throw new VmError("io", `the snapshot ${snapshot.name} is not whole: it has no ${WORK.guestEnv}`);
    return;
  }
  const read = readAssignments(text, () => "");
  if (read.kind !== "values") return;
  const images = read.assignments.findLast((item) => item.name === "IMAGES")?.value ?? [];
  for (const image of [images].flat().flatMap((item) => parseImage(item) ?? []))
    if (isDiskName(image.path) && !jobs.some((job) => job.name === image.path))
      throw new VmError(
        "io",
        `the snapshot ${snapshot.name} is not whole: the disk ${image.path} is missing`,
      );
}

export async function fillStage(
  context: Context,
  snapshot: Snapshot,
  jobs: readonly RestoreJob[],
  stage: Stage,
): Promise<void> {
  const total = jobs.reduce((sum, job) => sum + job.bytes, 0);
  const meter = context.meter(`restore ${snapshot.name}`, total);
  // Both read the same files: the second one finds them in memory. Images are not read at all.
  const sums = snapshot.manifest?.format === "qcow2" ? undefined : startVerifying(snapshot, jobs);
  try {
    await unpackFiles(
      jobs.map((job) => ({ ...job, to: join(stage.dir, job.name) })),
      (done) => meter.update(done),
    );
    await sums?.verified;
  } catch (error) {
    sums?.child.kill("SIGKILL");
    await sums?.child.done;
    throw error;
  } finally {
    meter.finish();
  }
  for (const { name } of jobs) if (isDiskName(name)) refuseForeignParts(join(stage.dir, name));
  checkLengths(snapshot, stage);
  for (const name of [WORK.guestEnv, defaultsName(context.prog)]) {
    const content = readSmallBytes(join(snapshot.dir, name));
    if (content !== undefined) writeNew(join(stage.dir, name), content);
  }
  for (const name of [WORK.in, WORK.out]) mkdirSync(join(stage.dir, name), { mode: 0o700 });
  if (snapshot.manifest?.firstTime) writeNew(join(stage.dir, WORK.firstTime), "");
}

function checkLengths(snapshot: Snapshot, stage: Stage): void {
  for (const { name, file, bytes } of snapshot.manifest?.files ?? [])
    if (file.endsWith(SNAPSHOT.gz) && statSync(join(stage.dir, name)).size !== bytes)
      throw new VmError(
        "io",
        `the snapshot ${snapshot.name} is damaged: ${name} does not have its ${bytes} bytes`,
      );
}

/** Verifies SHA256SUMS beside the unpacking; nothing for snapshots of the earlier program. */
function startVerifying(
  snapshot: Snapshot,
  jobs: readonly RestoreJob[],
): { child: Child; verified: Promise<void> } | undefined {
  if (!lstatOf(join(snapshot.dir, SNAPSHOT.sums))) {
    if (snapshot.manifest)
      throw new VmError("io", `the snapshot ${snapshot.name} is damaged: it has no ${SNAPSHOT.sums}`);
    log.info("  made by the earlier program: it has no checksums, only gzip's own");
    return undefined;
  }
  const listed = readSums(snapshot.dir);
  const needed = [
    ...jobs.map((job) => job.name + SNAPSHOT.gz),
    ...(snapshot.manifest ? [SNAPSHOT.manifest] : []),
  ];
  const unlisted = needed.find((file) => !listed.has(file));
  if (unlisted !== undefined)
    throw new VmError(
      "io",
      `the snapshot ${snapshot.name} is damaged: ${SNAPSHOT.sums} does not name ${unlisted}`,
    );
  const child = startSums(snapshot.dir);
  const verified = child.done.then((result) => {
    if (result.status === 0) return;
    const wrong = result.stdout.trim().split("\n").join("\n  ");
    throw new VmError(
      "io",
      `the snapshot ${snapshot.name} is damaged${wrong ? `:\n  ${wrong}` : `: ${new ProcessError("", result).message}`}`,
      {
        hint: "the working files were not touched; try an older snapshot",
      },
    );
  });
  verified.catch(() => {});
  return { child, verified };
}
