import { copyFileSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { lstatOf, readSmallBytes } from "../../lib/read-file.ts";
import type { Source } from "../../live/disk-source.ts";
import { exec } from "../../process/exec.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { isUnattended } from "../../process/unattended.ts";
import { convertImage, measureImage } from "../../qemu/img.ts";
import { createImage } from "../../qemu/new-image.ts";
import { allocatedBytes, fileError, requireSpace, syncFile, writeNew } from "../../store/files.ts";
import { defaultsName, HOST, isDiskName, TPM_STATE, WORK, workingPath } from "../../store/layout.ts";
import { findRamDamage } from "../../store/ram-intact.ts";
import { remove } from "../../store/remove.ts";
import { backingNameOf } from "../../store/snapshot-images.ts";
import { chainOf, requireIntact } from "../../store/snapshot-intact.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import type { Stage } from "../../store/stage.ts";
import type { Workdir } from "../../store/workdir.ts";
import { requireIntactBackingFiles } from "../../vm/backing-snapshot.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { requireDisks, requireIntactDisks, warnAboutInternalSnapshots } from "../make/check-disks.ts";
import { listSources } from "../make/sources.ts";
import { damagedSnapshot } from "../restore-images.ts";
import { findRamFile } from "../restore-ram.ts";
import { fillImages, listImages, measureCopies, type ImageJob } from "../restore-images.ts";
import { fillStage, listStored, requireUndamaged, type RestoreJob } from "../restore.ts";

/** What clones are made from, after all checks. */
export interface CloneSource {
  /** Puts disks, NVRAM, cloud-init's volume and the settings of PROG.defaults into new working files. */
  fill(stage: Stage, inplace: boolean): Promise<void>;
  /** guest.env, unchanged. */
  settings: string | undefined;
  /** The guest's system has not run yet. */
  firstTime: boolean;
  /** It has cloud-init's volume. */
  seeded: boolean;
  /** A disk has enough data for a system. */
  hasData: boolean;
}

/** Less than this is a new image's metadata. */
const BLANK_BYTES = 1 << 20;
const CANNOT = "cannot clone";
const UNCHANGED = "no clone was made; try another snapshot";

/** The working disks of a VM that is off. */
export async function openWorkingDisks(
  context: Context,
  vm: Vm,
  work: Workdir,
  { keepTpm }: { keepTpm: boolean },
): Promise<CloneSource> {
  requireDisks(work, vm.settings.IMAGES.map(({ path }) => path).filter(isDiskName), "clone");
  const sources = listSources(work).filter(({ name }) => keepTpm || name !== TPM_STATE);
  const layered = sources.filter(({ base }) => base).map(({ path }) => path);
  await requireIntactDisks(sources, { live: false, low: isUnattended(), purpose: "clone" });
  await requireIntactBackingFiles(vm, layered, { low: isUnattended(), cannot: CANNOT });
  warnAboutInternalSnapshots(sources, "qcow2", false);
  const firstTime = lstatOf(join(work.dir, WORK.firstTime)) !== undefined;
  const settingsOf = (name: string): Buffer | undefined =>
    readSmallBytes(join(work.dir, name)) ?? readSmallBytes(join(vm.hostdir, name));
  return {
    settings: settingsOf(HOST.guestEnv)?.toString(),
    firstTime,
    seeded: sources.some(({ name }) => name === WORK.seed),
    hasData: sources.some(
      ({ disk, path, base }) => disk && (base !== undefined || allocatedBytes(statSync(path)) >= BLANK_BYTES),
    ),
    fill: async ({ dir }, inplace) => {
      for (const source of sources) await copySource(context, source, dir, inplace);
      const defaults = settingsOf(defaultsName(context.prog));
      if (defaults) writeNew(join(dir, defaultsName(context.prog)), defaults);
      for (const name of [WORK.in, WORK.out]) mkdirSync(join(dir, name), { mode: 0o700 });
      if (firstTime) writeNew(join(dir, WORK.firstTime), "");
    },
  };
}

async function copySource(context: Context, source: Source, dir: string, inplace: boolean): Promise<void> {
  const { name, path, disk, base } = source;
  const to = workingPath(dir, name);
  if (name === TPM_STATE) mkdirSync(join(dir, WORK.tpm), { mode: 0o700 });
  if (!disk) copyFileSync(path, to);
  else if (base || !(await reflink(path, to))) {
    const image = { format: "qcow2", path } as const;
    const { virtualBytes, neededBytes } = await measureImage(image, base);
    requireSpace(dir, neededBytes, "clone", inplace ? "snapshots" : "tmpdir");
    const meter = context.meter(`clone ${name}`, virtualBytes);
    const follow = (part: number): void => meter.update(part * virtualBytes);
    await convertImage(image, to, follow, base).finally(() => meter.finish());
  }
  await syncFile(to);
  throwIfInterrupted();
}

/** Shares the data of a file with a copy, where the filesystem can: Btrfs, XFS, bcachefs. */
async function reflink(path: string, to: string): Promise<boolean> {
  const { status } = await exec(["cp", "--reflink=always", "--", path, to], { anyStatus: true });
  if (status !== 0) remove(to);
  return status === 0;
}

/**
 * A snapshot.
 * @param linked its disks are overlays on the snapshot's images, its RAM is mapped from there
 * @param ram with the RAM, to which the state of the TPM belongs
 */
export async function openSnapshot(
  context: Context,
  vm: Vm,
  snapshot: Snapshot,
  { linked, keepTpm, ram }: { linked: boolean; keepTpm: boolean; ram: boolean },
): Promise<CloneSource> {
  const jobs = listStored(snapshot, ram);
  requireUndamaged(vm.hostdir, snapshot, ram);
  const images = listImages(vm.hostdir, snapshot);
  // Copying would hide the damage, as nothing checks the copy.
  if (!linked && images.length > 0)
    await requireIntact(chainOf(vm.hostdir, snapshot), { cannot: CANNOT, hint: UNCHANGED, images: true });
  if (linked && ram) await requireIntactRam(context, snapshot);
  const raw = ram ? (findRamFile(snapshot)?.allocatedBytes ?? 0) : 0;
  const needed = linked
    ? 0
    : jobs.reduce((sum, job) => sum + job.neededBytes, raw + (await measureCopies(images)));
  const { files, parent } = snapshot.manifest ?? {};
  const disks = files?.filter(({ name }) => isDiskName(name));
  return {
    settings: readSmallBytes(join(snapshot.dir, HOST.guestEnv))?.toString(),
    firstTime: snapshot.manifest?.firstTime === true,
    seeded: jobs.some(({ name }) => name === WORK.seed),
    // An incremental one may have little itself.
    hasData: parent !== undefined || disks?.some(({ storedBytes }) => storedBytes >= BLANK_BYTES) !== false,
    fill: async (stage, inplace) => {
      requireSpace(stage.dir, needed, "clone", inplace ? "snapshots" : "tmpdir");
      await fillFromSnapshot(context, snapshot, jobs, images, stage, linked);
      // The lengths of all files have been compared with the manifest.
      if (!keepTpm && !ram) remove(join(stage.dir, WORK.tpm));
    },
  };
}

/** What a machine maps is not compared when it is copied. @throws 74 if it is damaged */
async function requireIntactRam({ cacheDirectory }: Context, snapshot: Snapshot): Promise<void> {
  const damage = await findRamDamage(snapshot.dir, cacheDirectory);
  if (damage === undefined) return;
  const { message } = damagedSnapshot(snapshot, damage);
  throw new VmError("io", message, {
    hint: `no clone was made; clone its disks only: ${commandLine("clone", "--linked", snapshot.name, "DIR")}`,
  });
}

async function fillFromSnapshot(
  context: Context,
  snapshot: Snapshot,
  jobs: readonly RestoreJob[],
  images: readonly ImageJob[],
  stage: Stage,
  linked: boolean,
): Promise<void> {
  await fillStage(context, snapshot, jobs, stage, linked);
  if (!linked) return fillImages(context, snapshot, images, stage.dir, "copy");
  try {
    // Each is a program that is started: together they take as long as one.
    await Promise.all(
      images.map(async ({ name, virtualBytes }) => {
        const path = join(stage.dir, name);
        const backing = backingNameOf(snapshot.name, name, WORK.baseLink);
        await createImage(path, { sizeBytes: virtualBytes, backing, subclusters: true });
        await syncFile(path);
      }),
    );
  } catch (error) {
    throw fileError(CANNOT, error);
  }
}
