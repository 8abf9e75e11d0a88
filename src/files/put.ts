import { join } from "node:path";
import { log } from "../lib/log.ts";
import { usageError } from "../lib/errors.ts";
import { commandLine } from "../lib/command-line.ts";
import { counted } from "../lib/text.ts";
import { ARCH } from "../machine/arch.ts";
import type { Disk } from "../machine/types.ts";
import { probeQemu } from "../qemu/probe.ts";
import { claimFiles } from "../store/claim.ts";
import { LAST, WORK } from "../store/layout.ts";
import { remove } from "../store/remove.ts";
import type { Workdir } from "../store/workdir.ts";
import { JOB_NAMES } from "../store/working-names.ts";
import type { Context } from "../vm/context.ts";
import { requireWork, type Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";
import { keepFormats } from "../vm/image-formats.ts";
import { refuseRunning, refuseSuspended } from "../vm/in-use.ts";
import { resolveDisks } from "../vm/machine.ts";
import { Media } from "../vm/media.ts";
import { refuseTemplate } from "../vm/template.ts";
import { openScratch } from "./disks.ts";
import { packFiles } from "./get.ts";
import { validateGuestPath } from "./request.ts";
import { runFilesJob } from "./run.ts";
import { withPlace, type SnapshotPlace } from "./snapshot.ts";

/** Arguments of `restore --only`. */
export interface PutRequest {
  name: string | undefined;
  paths: readonly string[];
  remote: boolean;
}

/** @throws 64 */
export function validateOnly(paths: readonly string[]): void {
  for (const path of paths) {
    validateGuestPath(path);
    if (!/[^/.]/.test(path.replace(/^[^/]*:/, "")))
      throw usageError(
        `restore --only: ${path} is a whole filesystem`,
        `restore all: ${commandLine("restore")}`,
      );
  }
}

/**
 * Replaces files in the working disks of a VM that is off by those of a snapshot: the rescue packs them in one run, and
 * unpacks them beside the old ones in another. The old ones stay until all are complete.
 */
export async function restoreFiles(
  context: Context,
  { name = LAST, paths, remote }: PutRequest,
): Promise<void> {
  const change = async (vm: Vm): Promise<void> => {
    refuseTemplate(vm, "restore files");
    const work = requireWork(vm, "restore files");
    await refuseRunning(work, "restore files");
    refuseSuspended(work, "restore files");
    await withPlace(context, vm, { name, remote }, (place) => replaceFiles(context, vm, work, place, paths));
  };
  await withVm(context, "restore files", change, { lenient: true });
}

async function replaceFiles(
  context: Context,
  vm: Vm,
  work: Workdir,
  place: SnapshotPlace,
  paths: readonly string[],
): Promise<void> {
  using scratch = openScratch(context, vm);
  const archive = await packFiles(context, vm, place, scratch, paths, true);
  claimFiles(work, JOB_NAMES, true);
  try {
    const disks = await currentDisks(context, vm, work);
    keepFormats(vm, work, disks);
    await runFilesJob(context, vm, work, {
      operation: "unpack",
      paths,
      disks,
      result: archive,
      cannot: `cannot restore files of ${place.snapshot.name}`,
    });
  } finally {
    remove(join(work.dir, WORK.in));
  }
  log.success(`restored ${counted(paths.length, "path")} of ${place.snapshot.name}`);
}

async function currentDisks(context: Context, vm: Vm, work: Workdir): Promise<Disk[]> {
  const media = new Media(context, vm);
  const capabilities = await probeQemu(ARCH[vm.settings.QEMUARCH].binary, context.cacheDirectory);
  const paths = vm.settings.IMAGES.map(({ path }) => path);
  return resolveDisks(context, vm, work, await media.macros(paths, work.dir), capabilities);
}
