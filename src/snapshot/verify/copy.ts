import { join } from "node:path";
import { loadSettings, type Loaded } from "../../config/load.ts";
import { parseNetwork } from "../../machine/network.ts";
import type { Disk, Machine } from "../../machine/types.ts";
import type { Capabilities } from "../../qemu/capabilities.ts";
import { newMark } from "../../store/mark-types.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { requireSpace } from "../../store/files.ts";
import { isDiskName, WORK } from "../../store/layout.ts";
import type { Stage } from "../../store/stage.ts";
import type { Context } from "../../vm/context.ts";
import { DEFAULT_PORT } from "../../vm/display.ts";
import { numberImages } from "../../vm/disks.ts";
import { resolveFiles, resolveMachine } from "../../vm/machine.ts";
import { Media } from "../../vm/media.ts";
import { sourcesOf, type Vm } from "../../vm/find.ts";
import { type Workdir } from "../../store/workdir.ts";
import { fillStage, listStored } from "../restore.ts";
import { fillImages, listImages } from "../restore-images.ts";
import type { SavedMachine } from "../../store/manifest.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import { optionsOfRun } from "../../vm/running-settings.ts";

/**
 * Copies a snapshot to a stage: gzip files decompressed, images as overlays on the snapshot's.
 * @param ram includes the state of the running guest; RAM that is stored as it is stays in the snapshot
 */
export async function fillCopy(
  context: Context,
  vm: Vm,
  snapshot: Snapshot,
  stage: Pick<Stage, "dir">,
  ram = false,
): Promise<void> {
  const jobs = listStored(snapshot, ram);
  const needed = jobs.reduce((sum, job) => sum + job.neededBytes, 0);
  requireSpace(context.tmpdir, needed, `boot ${snapshot.name}`, "tmpdir");
  await fillStage(context, snapshot, jobs, stage, true);
  await fillImages(context, snapshot, listImages(vm.hostdir, snapshot), stage.dir, WORK.hostLink);
}

/** A machine that was running, and is to be resumed: it has the same devices. */
export type SavedRun = Pick<SavedMachine, "run" | "cd">;

/** The settings of a copy: those of the snapshot, if it has some. */
export async function loadCopied(
  context: Context,
  vm: Vm,
  dir: string,
  saved?: SavedRun,
): Promise<Pick<Vm, keyof Loaded>> {
  if (!lstatOf(join(dir, WORK.guestEnv))) return vm;
  const work: Workdir = { state: "present", dir, inplace: false, mark: newMark() };
  const options = saved
    ? { ...optionsOfRun(saved.run), hostdir: context.options.hostdir }
    : { ...context.options, additions: {} };
  return loadSettings(sourcesOf({ ...context, options }, vm.hostdir, work));
}

/** For a display: the VM itself may use the port of its settings. */
const chooseLookPort = ({
  settings: { PORT },
  origins,
}: Pick<Vm, "settings" | "origins">): number | undefined =>
  PORT === undefined || origins.PORT.kind === "option" ? PORT : DEFAULT_PORT;

/**
 * Builds the isolated machine that boots the copy, or resumes it, from the snapshot's settings.
 * @param look for a user who looks at it: with a display, and the networks of the command line, if it has any
 */
export async function resolveCopy(
  context: Context,
  vm: Vm,
  dir: string,
  capabilities: Capabilities,
  { saved, look = false }: { saved?: SavedRun | undefined; look?: boolean } = {},
): Promise<Machine> {
  const work: Workdir = { state: "present", dir, inplace: false, mark: newMark() };
  const own = await loadCopied(context, vm, dir, saved);
  const typedCards = look ? (context.options.additions.NETWORKS ?? []) : [];
  const networks = typedCards.flatMap((word) => parseNetwork(word) ?? []);
  const settings = {
    ...own.settings,
    IMAGES: [],
    // A saved machine has their devices: of an empty directory.
    SHARES: saved ? own.settings.SHARES.map((share) => ({ ...share, path: join(dir, WORK.in) })) : [],
    PORT: look ? chooseLookPort(own) : saved && own.settings.PORT,
    SPICE_SOCKET: look ? own.settings.SPICE_SOCKET : true,
    NETBOOT: saved ? own.settings.NETBOOT : ("off" as const),
    NETBOOT_DIR: "",
    NETWORKS: saved ? own.settings.NETWORKS : networks,
    FORWARDS: [],
  };
  // A port that only a file chose is as the default: if it is taken, the next one.
  const origins =
    look && own.origins.PORT.kind === "file"
      ? { ...own.origins, PORT: { kind: "default" as const } }
      : own.origins;
  const copy: Vm = { ...own, settings, origins, hostdir: vm.hostdir, work };
  const machine = await resolveMachine(
    context,
    copy,
    work,
    new Media(context, copy),
    saved && saved.cd.path !== null ? { path: saved.cd.path, first: saved.cd.first } : undefined,
    capabilities,
  );
  // The copy must not act as the original on a network.
  const isolated = machine.nics.map(({ lifeline: _lifeline, ...nic }) => ({
    ...nic,
    network: { kind: "user" as const },
    forwards: ["restrict=on"],
  }));
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
  const nics = networks.length > 0 ? machine.nics : isolated;
  return { ...machine, disks, nics, files, extraArgs: [] };
}
