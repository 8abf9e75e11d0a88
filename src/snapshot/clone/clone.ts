import { basename, join } from "node:path";
import { commandLine, commandLineFor } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { log, snapshotName } from "../../lib/log.ts";
import { forEachItem } from "../../lib/pool.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { counted } from "../../lib/text.ts";
import { formatDuration } from "../../lib/time.ts";
import { newUuid } from "../../lib/uuid.ts";
import { buildMetaData, buildNetworkConfig, hostNameOf } from "../../machine/cloud-config.ts";
import { parseSettings } from "../../config/schema.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { forgetClones, recordClones, type CloneEntry } from "../../store/clones.ts";
import { fileError, replaceFile } from "../../store/files.ts";
import { readValues } from "../../store/guest-env.ts";
import { HOST, SNAPSHOT, WORK } from "../../store/layout.ts";
import { lockVm } from "../../store/lock.ts";
import { consistencyOf, type CloneRecord, type Mark } from "../../store/mark-types.ts";
import { notePlace } from "../../store/places.ts";
import { recoverWork } from "../../store/recover.ts";
import { remove } from "../../store/remove.ts";
import { recordSnapshot } from "../../store/snapshot-parent.ts";
import { findSnapshot, listSnapshotNames, type Snapshot } from "../../store/snapshots.ts";
import { stageWork } from "../../store/stage.ts";
import { isSuspended } from "../../store/is-suspended.ts";
import type { Context } from "../../vm/context.ts";
import { requireWork, type Vm } from "../../vm/find.ts";
import { findRunning } from "../../vm/in-use.ts";
import { nicsOf } from "../../vm/nics.ts";
import { withVm } from "../../vm/open.ts";
import { readSeed, requireIsoProgram, writeSeed } from "../../vm/seed-volume.ts";
import { reportVolatile } from "../../vm/volatile.ts";
import { makeDestination, refuseTakenDirectory, resolveDestination } from "../../vm/destination.ts";
import { openSnapshot, openWorkingDisks, type CloneSource } from "./disks.ts";
import { reportShared, takesRam, writeCloneState } from "./ram.ts";
import type { CloneRequest } from "./request.ts";
import { buildCloneSettings, findChosenPorts, type ChosenPorts } from "./settings.ts";

/** Each waits for programs that are started, and for the disk. */
const LINKED_AT_ONCE = 4;

/** Clones that were made. */
export interface Clones {
  made: { directory: string; hostName: string }[];
  /**
   * What gives their guests a host name, a machine-id and SSH host keys: a job, on the disks; or the agent, in guests that
   * are resumed. Absent: nothing, or cloud-init at the first boot.
   */
  renewedBy?: "job" | "agent";
}

/** Clones to make. */
interface ClonePlan {
  context: Context;
  vm: Vm;
  source: CloneSource;
  /** Absent: from the working disks. */
  snapshot: Snapshot | undefined;
  request: CloneRequest;
  ports: ChosenPorts;
  inplace: boolean;
  /** With the RAM of the snapshot. */
  ram: boolean;
}

/**
 * Creates VMs from this one or its snapshot. Each is complete or not there; those that were made stay if a later one fails.
 * @param requireJob checks that the job of those that need it can run, before anything is made
 * @throws 66 without such a snapshot, 73 if a directory exists or without space, 74 if a disk is damaged, 75 while the VM runs
 */
export const cloneVm = (
  context: Context,
  request: CloneRequest,
  requireJob: (vm: Vm) => Promise<void>,
): Promise<Clones> =>
  withVm(context, "clone", async (vm) => {
    const { hostdir, work } = vm;
    const snapshot = chooseSnapshot(vm, request);
    const within = [hostdir, ...(work.state === "present" ? [work.dir] : [])];
    const directories = request.directories.map((typed) =>
      resolveDestination("clone", typed, context.cwd, within),
    );
    const ram = await takesRam(context, vm, snapshot, request.runs);
    const source = snapshot
      ? await openSnapshot(context, vm, snapshot, { ...request, ram })
      : await openOff(context, vm, request);
    const byCloudInit = source.seeded && !request.keepGuest;
    if (byCloudInit) requireIsoProgram();
    const byJob = !request.keepGuest && !ram && source.hasData && !(source.firstTime && source.seeded);
    if (byJob) await requireJob(vm);
    const plan: ClonePlan = {
      context,
      vm,
      source,
      snapshot,
      request,
      ram,
      ports: findChosenPorts(context.cacheDirectory),
      inplace:
        context.options.settings.INPLACE === undefined && work.state === "present"
          ? work.inplace
          : vm.settings.INPLACE,
    };
    const made: string[] = [];
    const make = async (directory: string): Promise<void> => {
      await makeClone(plan, directory);
      made.push(directory);
    };
    await forEachItem(directories, request.linked ? LINKED_AT_ONCE : 1, make).catch((error: unknown) => {
      if (byJob) reportUnrenewed(made);
      throw error;
    });
    if (directories.length > 1) log.success(`made ${counted(directories.length, "clone")}`);
    if (ram) reportShared(snapshot!, directories);
    const renewedBy = byJob ? "job" : ram && !request.keepGuest ? "agent" : undefined;
    return {
      made: directories.map((directory) => ({ directory, hostName: hostNameOf(basename(directory)) })),
      ...(renewedBy && { renewedBy }),
    };
  });

/** Those that were made before another one failed. */
function reportUnrenewed(made: readonly string[]): void {
  for (const directory of made)
    log.warn(
      `the guest of ${directory} still has the identity of the original; renew it: ${commandLineFor(directory, "job", "new-identity")}`,
    );
}

/** The snapshot to clone; undefined for the working disks. @throws 64 for a linked clone without one, 66 if it does not exist */
function chooseSnapshot(
  { hostdir, settings }: Vm,
  { snapshot: name, linked }: CloneRequest,
): Snapshot | undefined {
  if (name === undefined && !linked) return undefined;
  if (name === undefined && !settings.TEMPLATE)
    throw new VmError("usage", "clone: --linked needs a snapshot, as the working disks change", {
      hint: `make one and name it: ${commandLine("backup", "--format=qcow2")} && ${commandLine("clone", "--linked", "LAST", "DIR")}`,
    });
  if (linked && listSnapshotNames(hostdir).length === 0)
    throw new VmError("noInput", `cannot make a linked clone: the VM in ${hostdir} has no snapshots`, {
      hint: `make one: ${commandLine("backup", "--format=qcow2")}`,
    });
  const snapshot = findSnapshot(hostdir, name);
  if (snapshot.problem) throw snapshot.problem;
  if (linked && snapshot.manifest?.format !== "qcow2")
    throw new VmError("usage", `cannot make a linked clone of ${snapshot.name}: it is not a qcow2 snapshot`, {
      hint: `make one: ${commandLine("backup", "--format=qcow2")}; or a full clone: leave --linked out`,
    });
  return snapshot;
}

async function openOff(context: Context, vm: Vm, request: CloneRequest): Promise<CloneSource> {
  if (vm.work.state !== "present" && listSnapshotNames(vm.hostdir).length > 0)
    throw new VmError("noInput", `cannot clone the working disks: the VM in ${vm.hostdir} has none`, {
      hint: `clone its last snapshot: ${commandLine("clone", "LAST", "DIR")}`,
    });
  const work = requireWork(vm, "clone");
  const running = await findRunning(work);
  if (running !== undefined)
    throw new VmError("busy", `cannot clone the working disks: the VM is running (${running})`, {
      hint: request.runs
        ? `clone a snapshot with RAM: ${commandLine("backup", "--ram")} && ${commandLine("clone", "LAST", "DIR", "--run")}`
        : `clone a snapshot: ${commandLine("backup")} && ${commandLine("clone", "LAST", "DIR")}`,
    });
  if (isSuspended(work.dir))
    log.warn(
      "the VM is suspended: the clone is crash-consistent, as after a power cut; its RAM is not cloned",
    );
  if (work.mark.arriving)
    await (await import("../../vm/arriving.ts")).refuseArriving(work, "clone the working disks");
  return openWorkingDisks(context, vm, work, request);
}

async function makeClone(plan: ClonePlan, directory: string): Promise<void> {
  const { context, vm, source, snapshot, request, inplace } = plan;
  const started = performance.now();
  const name = basename(directory);
  const what = `cannot clone to ${directory}`;
  const uuid = newUuid();
  const clone = recordSource(vm, snapshot, request.linked);
  const entry = clone.base && { uuid, directory, snapshot: clone.base.name };
  const withdraw = makeDestination("clone", directory);
  try {
    using _lock = await lockVm(directory, "clone");
    recoverWork(directory, [context.tmpdir]);
    refuseTakenDirectory("clone", directory);
    if (source.settings === undefined)
      throw new VmError("config", `${what}: the VM has no guest.env`, { hint: "clone a VM that can run" });
    const home = vm.work.state === "present" ? vm.work.dir : undefined;
    const settings = await buildCloneSettings(source.settings, { name, uuid }, home, plan.ports);
    if (entry) recordClones(vm.hostdir, [{ ...entry, pending: true }]);
    const stage = stageWork(directory, inplace ? "inplace" : context, { state: "none" });
    let dir: string;
    try {
      await source.fill(stage, inplace);
      replaceFile(join(stage.dir, HOST.guestEnv), settings);
      if (source.seeded && !request.keepGuest) await renewSeed(vm, stage.dir, name, settings);
      const state = plan.ram ? writeCloneState(snapshot!, stage.dir, request.linked) : {};
      throwIfInterrupted();
      dir = stage.commit({ ...describeConsistency(vm, snapshot), clone, ...state });
    } catch (error) {
      stage.abort();
      throw error;
    }
    if (entry) recordClones(vm.hostdir, [entry]);
    notePlace(context.cacheDirectory, uuid, directory);
    reportClone(plan, directory, dir, (performance.now() - started) / 1000);
  } catch (error) {
    if (!lstatOf(join(directory, HOST.workLink))) {
      forgetQuietly(vm.hostdir, entry);
      withdraw();
    }
    throw fileError(what, error, "free some space and run the command again; no clone was made there");
  }
}

function reportClone(
  { vm, snapshot, request, inplace }: ClonePlan,
  directory: string,
  dir: string,
  seconds: number,
): void {
  const of = snapshot ? `${snapshotName(snapshot.name)} of ${vm.hostdir}` : vm.hostdir;
  log.success(`cloned ${of} to ${directory}${request.linked ? ", linked" : ""}: ${formatDuration(seconds)}`);
  reportVolatile(directory, { dir, inplace }, (...words) => commandLineFor(directory, ...words));
}

/** Where the clone comes from, for its mark. */
function recordSource(
  { hostdir, settings: { UUID: uuid } }: Vm,
  snapshot: Snapshot | undefined,
  linked: boolean,
): CloneRecord {
  const base = linked ? recordSnapshot(snapshot!) : undefined;
  if (linked && !base)
    throw new VmError(
      "config",
      `cannot make a linked clone of ${snapshot!.name}: an older version made it, without an id or ${SNAPSHOT.sums}`,
      {
        hint: `make a new snapshot: ${commandLine("backup", "--format=qcow2", "--full")}`,
      },
    );
  return {
    directory: hostdir,
    ...(uuid !== "" && { uuid }),
    ...(snapshot && { snapshot: snapshot.name }),
    ...(base && { base }),
  };
}

/** Consistency of the disks, as after a restore. */
const describeConsistency = ({ work }: Vm, snapshot: Snapshot | undefined): Partial<Mark> =>
  snapshot
    ? {
        restored: snapshot.manifest?.consistency ?? "crash-consistent",
        ...(snapshot.manifest ? {} : { unrecorded: true as const }),
      }
    : { restored: work.state === "present" ? consistencyOf(work.mark) : "crash-consistent" };

function forgetQuietly(hostdir: string, entry: CloneEntry | undefined): void {
  try {
    if (entry) forgetClones(hostdir, new Set([entry.uuid]));
  } catch {
    // The next command recognises it as unfinished.
  }
}

/** A new instance for cloud-init, which sets the host name and makes new SSH host keys then. */
async function renewSeed(vm: Vm, dir: string, name: string, settings: string): Promise<void> {
  const path = join(dir, WORK.seed);
  const seed = readSeed(path);
  const values = Object.entries(readValues(settings) ?? {}).filter(([key]) => key in vm.raw);
  const nics = nicsOf(parseSettings({ ...vm.raw, ...Object.fromEntries(values) }));
  remove(path);
  await writeSeed(dir, {
    ...seed,
    "meta-data": buildMetaData(`vm-${newUuid()}`, hostNameOf(name)),
    ...(seed["network-config"] !== undefined && { "network-config": buildNetworkConfig(nics) }),
  });
}

/**
 * Forgets a linked clone that does not exist any more, so that the snapshot that it needed can be removed.
 * @throws 66 if none is recorded there, 75 if it exists
 */
export const forgetClone = (context: Context, directory: string): Promise<void> =>
  withVm(context, "forget a clone", async ({ hostdir }) => {
    const { inspectClones } = await import("../../vm/clones.ts");
    const { resolve } = await import("node:path");
    const place = resolve(context.cwd, directory);
    const found = inspectClones(hostdir).filter((clone) => clone.directory === place);
    const needed = found.find(({ state }) => state === "linked");
    if (needed)
      throw new VmError(
        "busy",
        `cannot forget ${place}: it is a linked clone that needs ${needed.snapshot}`,
        {
          hint: `destroy it first: ${commandLineFor(place, "destroy")}`,
        },
      );
    if (found.length === 0)
      throw new VmError("noInput", `no linked clone of this VM is recorded in ${place}`, {
        hint: `list them: ${commandLine("status")}`,
      });
    forgetClones(hostdir, new Set(found.map(({ uuid }) => uuid)));
    log.success(`forgot the clone ${place}`);
  });
