/** Runs a VM whose disks are still being copied from the repository. */
import { commandLine } from "../lib/command-line.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import type { QmpClient } from "../qmp/client.ts";
import {
  holdRepository,
  linkRepository,
  pointToRepository,
  type HeldRepository,
} from "../snapshot/remote/arriving.ts";
import type { Workdir } from "../store/workdir.ts";
import { continueCopying, findKeeper, listArriving, reconnectDisks, refuseHasty } from "../vm/arriving.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";

/**
 * Mounts the repository for the disks that need it.
 * @param held as `restore` has mounted it
 * @throws as `holdRepository`, and 78 for a disk on another bus now
 */
export async function attachRepository(
  context: Context,
  { hostdir, settings }: Vm,
  work: Workdir,
  held?: HeldRepository,
): Promise<HeldRepository> {
  const repository = held ?? (await holdRepository(context, hostdir, work.mark.arriving!));
  try {
    await linkRepository(work, repository);
    refuseHasty(settings.IMAGES, work);
  } catch (error) {
    await repository.end();
    throw error;
  }
  return repository;
}

/** Has qemu copy what is still in the repository. The guest runs already: the keeper tries again. */
export async function startCopying(qmp: QmpClient, work: Workdir): Promise<void> {
  await continueCopying(qmp, work).catch((error: unknown) => {
    log.warn(`cannot copy the disks from the repository yet: ${reasonOf(error)}`);
  });
}

/**
 * Before a guest is resumed: has the repository served again if the process that did so was killed.
 * @throws 66 while the repository cannot be read
 */
export async function serveAgain(context: Context, vm: Vm, work: Workdir, qmp: QmpClient): Promise<void> {
  if (listArriving(work).length === 0) return;
  const keeper = findKeeper(work.dir);
  if (keeper === "serves") return;
  if (keeper === "away")
    throw new VmError(
      "noInput",
      "cannot resume: the repository, which has a part of the disks, cannot be read",
      {
        hint: `make it available: the guest is resumed then; check it: ${commandLine("snapshots", "--remote")}`,
      },
    );
  const repository = await holdRepository(context, vm.hostdir, work.mark.arriving!);
  try {
    pointToRepository(work, repository);
    await reconnectDisks(qmp, work);
    await continueCopying(qmp, work);
  } catch (error) {
    await repository.end();
    throw error;
  }
  repository.handOver();
}
