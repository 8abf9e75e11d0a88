import { join } from "node:path";
import { loadSettings } from "../../config/load.ts";
import type { Disk, Machine } from "../../machine/types.ts";
import type { Capabilities } from "../../qemu/capabilities.ts";
import { newMark } from "../../store/mark-types.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { requireSpace } from "../../store/files.ts";
import { isDiskName, WORK } from "../../store/layout.ts";
import type { Stage } from "../../store/stage.ts";
import type { Context } from "../../vm/context.ts";
import { numberImages } from "../../vm/disks.ts";
import { resolveFiles, resolveMachine } from "../../vm/machine.ts";
import { Media } from "../../vm/media.ts";
import { sourcesOf, type Vm } from "../../vm/find.ts";
import { type Workdir } from "../../store/workdir.ts";
import { fillStage, listStored } from "../restore.ts";
import { fillImages, listImages } from "../restore-images.ts";
import type { Snapshot } from "../../store/snapshots.ts";

/** Copies a snapshot to a stage: gzip files decompressed, images as overlays on the snapshot's. */
export async function fillCopy(context: Context, vm: Vm, snapshot: Snapshot, stage: Stage): Promise<void> {
  const jobs = listStored(snapshot);
  const needed = jobs.reduce((sum, job) => sum + job.neededBytes, 0);
  requireSpace(context.tmpdir, needed, `boot ${snapshot.name}`, "tmpdir");
  await fillStage(context, snapshot, jobs, stage);
  await fillImages(context, snapshot, listImages(vm.hostdir, snapshot), stage.dir, false);
}

/** Builds the isolated machine that boots the copy, from the snapshot's settings. */
export async function resolveCopy(
  context: Context,
  vm: Vm,
  dir: string,
  capabilities: Capabilities,
): Promise<Machine> {
  const work: Workdir = { state: "present", dir, inplace: false, mark: newMark() };
  const own = lstatOf(join(dir, WORK.guestEnv))
    ? await loadSettings({ ...sourcesOf(context, vm.hostdir, work), additions: {} })
    : vm;
  const settings = {
    ...own.settings,
    IMAGES: [],
    SHARES: [],
    PORT: undefined,
    NETWORKS: [],
    NETBOOT: "off" as const,
    NETBOOT_DIR: "",
    // The copy must not act as the original on a network.
    FORWARDS: ["restrict=on"],
  };
  const copy: Vm = { ...own, settings, hostdir: vm.hostdir, work };
  const machine = await resolveMachine(
    context,
    copy,
    work,
    new Media(context, copy),
    undefined,
    capabilities,
  );
  const numbers = numberImages(own.settings);
  const disks = own.settings.IMAGES.flatMap(({ bus, path }, index): Disk[] => {
    if (!isDiskName(path)) return [];
    return [
      {
        number: numbers[index]!,
        bus,
        format: "qcow2",
        path: join(dir, path),
        serial: `disk-${numbers[index]}`,
        // This program has just created them.
        backingAllowed: true,
      },
    ];
  });
  const files = resolveFiles(work, WORK.consoleLog);
  return { ...machine, disks, files, extraArgs: [] };
}
