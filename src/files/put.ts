import { join } from "node:path";
import { log, snapshotName } from "../lib/log.ts";
import { formatTimestamp } from "../lib/time.ts";
import { usageError } from "../lib/errors.ts";
import { commandLine } from "../lib/command-line.ts";
import { counted, plain } from "../lib/text.ts";
import { ARCH } from "../machine/arch.ts";
import type { Disk } from "../machine/types.ts";
import { probeQemu } from "../qemu/probe.ts";
import { claimFiles } from "../store/claim.ts";
import { recordEvent } from "../store/history.ts";
import { LAST, WORK } from "../store/layout.ts";
import { remove } from "../store/remove.ts";
import type { Workdir } from "../store/workdir.ts";
import { JOB_NAMES } from "../store/working-names.ts";
import type { Context } from "../vm/context.ts";
import { requireWork, type Vm } from "../vm/find.ts";
import { withWholeVm } from "../vm/open.ts";
import { keepFormats } from "../vm/image-formats.ts";
import { refuseRunning, refuseSuspended } from "../vm/in-use.ts";
import { resolveDisks } from "../vm/machine.ts";
import { Media } from "../vm/media.ts";
import { refuseTemplate } from "../vm/template.ts";
import { detached, openScratch, overlayDisks } from "./disks.ts";
import { packFiles } from "./get.ts";
import { validateGuestPath } from "./request.ts";
import { createResult, readAnswer, runFilesJob, type FilesJob } from "./run.ts";
import { withPlace, type SnapshotPlace } from "./snapshot.ts";

/** Arguments of `restore --only`. */
export interface PutRequest {
  name: string | undefined;
  paths: readonly string[];
  remote: boolean;
  keyFile: string | undefined;
  /** Only check, and say what would be replaced. */
  dryRun: boolean;
}

/** @throws 64 */
export function validateOnly(paths: readonly string[], name: string | undefined, remote = false): void {
  for (const path of paths) {
    validateGuestPath(path, name ?? LAST, remote);
    const within = path.replace(/^[^/]*:/, "");
    if (/^[/.]*$/.test(within))
      throw usageError(
        `restore --only: ${path} is a whole filesystem`,
        `restore all: ${commandLine("restore", ...(name === undefined ? [] : [name]), ...(remote ? ["--from-remote"] : []))}`,
      );
    if (/\/\.\.?\/*$/.test(within))
      throw usageError(
        `restore --only: ${path} does not end in a name`,
        "name the file or directory that is to be replaced",
      );
  }
}

/**
 * Replaces files in the working disks of a VM that is off by those of a snapshot: the rescue packs them in one run, and
 * unpacks them beside the old ones in another. The old ones stay until all are complete.
 */
export async function restoreFiles(
  context: Context,
  { name = LAST, paths: all, remote, keyFile, dryRun }: PutRequest,
): Promise<void> {
  const paths = withoutNested(all);
  const change = async (vm: Vm): Promise<void> => {
    refuseTemplate(vm, "restore files");
    const work = requireWork(vm, "restore files");
    await refuseRunning(work, "restore files");
    refuseSuspended(work, "restore files");
    await withPlace(context, vm, { name, remote, keyFile }, async (place) => {
      const { name: found, made } = place.snapshot;
      const announce = (verb: string): void => {
        log.info(`${verb} files of ${snapshotName(found)}, made ${formatTimestamp(made)}:`);
        for (const path of paths) log.info(`  ${plain(path)}`);
      };
      if (!dryRun) announce("restoring");
      await restoreFrom(context, vm, work, place, paths, dryRun);
      if (dryRun) announce("would restore");
    });
  };
  await withWholeVm(context, "restore files", change, { lenient: true });
}

/** Has the rescue pack the files of the snapshot, or only find them, and then replace, or check, those of the VM. */
async function restoreFrom(
  context: Context,
  vm: Vm,
  work: Workdir,
  place: SnapshotPlace,
  paths: readonly string[],
  dryRun: boolean,
): Promise<void> {
  using scratch = openScratch(context, vm);
  const archive = await packFiles(context, vm, place, scratch, paths, dryRun ? "find" : "pack-all");
  const disks = await currentDisks(context, vm, work);
  const job = {
    paths,
    disks,
    keyFile: place.keyFile,
    cannot: `cannot restore files of ${place.snapshot.name}`,
  };
  if (dryRun) return await checkFiles(context, vm, job);
  await replaceFiles(context, vm, work, { ...job, result: archive });
  log.success(`restored ${counted(paths.length, "path")} of ${place.snapshot.name}`);
  const { name: snapshot } = place.snapshot;
  recordEvent(context, vm.hostdir, { event: "restored", snapshot, how: `files: ${paths.join(" ")}` });
}

type PutJob = Pick<FilesJob, "paths" | "disks" | "keyFile" | "cannot">;

/** Can they be replaced? On throw-away overlays. */
async function checkFiles(context: Context, vm: Vm, job: PutJob): Promise<void> {
  using scratch = openScratch(context, vm);
  const disks = await overlayDisks(job.disks, scratch, job.cannot);
  const result = join(scratch.dir, "result.raw");
  createResult(result, 0);
  const check = { ...job, operation: "check", disks, result } as const;
  await runFilesJob(context, detached(vm, scratch.work), scratch.work, check);
}

async function replaceFiles(
  context: Context,
  vm: Vm,
  work: Workdir,
  job: PutJob & Pick<FilesJob, "result">,
): Promise<void> {
  claimFiles(work, JOB_NAMES, true);
  try {
    keepFormats(vm, work, job.disks);
    await runFilesJob(context, vm, work, { ...job, operation: "unpack" });
    const left = readAnswer(work, "left");
    if (left !== undefined)
      log.warn(`cannot remove the old files in the guest: remove them there: ${plain(left)}`);
  } finally {
    remove(join(work.dir, WORK.in));
  }
}

const trimPath = (path: string): string => path.replaceAll(/\/+/g, "/").replace(/\/$/, "");

/** Pure: without what is in another one, or the same. */
export function withoutNested(paths: readonly string[]): string[] {
  return paths.filter((path, index) => {
    const within = `${trimPath(path)}/`;
    return !paths.some((other, at) => {
      const above = `${trimPath(other)}/`;
      return at !== index && within.startsWith(above) && (within !== above || at < index);
    });
  });
}

async function currentDisks(context: Context, vm: Vm, work: Workdir): Promise<Disk[]> {
  const media = new Media(context, vm);
  const capabilities = await probeQemu(ARCH[vm.settings.QEMUARCH].binary, context.cacheDirectory);
  const paths = vm.settings.IMAGES.map(({ path }) => path);
  return resolveDisks(context, vm, work, await media.macros(paths, work.dir), capabilities);
}
