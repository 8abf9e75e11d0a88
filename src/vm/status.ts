import { readlinkSync } from "node:fs";
import { basename, join, sep } from "node:path";
import { hasLimits } from "../config/machine-values.ts";
import { EXIT, hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import type { AttachedDisk } from "../live/attached.ts";
import type { Aio } from "../machine/types.ts";
import { findHeaderDamage, readOwnHeader, readVirtualBytes } from "../qemu/image-header.ts";
import { isImageInUse } from "../qemu/image-lock.ts";
import { STATE_FILES } from "../qemu/state-files.ts";
import { isListening } from "../process/unix-socket.ts";
import { isExitUnrecorded } from "../store/mark.ts";
import { INTERRUPTED_JOB, type RunEnd, type RunRecord } from "../store/mark-types.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { fileError } from "../store/files.ts";
import { HOST, isDiskName, LAST, TPM_STATE, WORK, workingPath } from "../store/layout.ts";
import { describeGone, findGuestEnv, type Workdir } from "../store/workdir.ts";
import type { Alive } from "./alive.ts";
import type { FoundBase } from "./clone-base.ts";
import type { Context } from "./context.ts";
import { findQemus, isAnyDiskInUse } from "./in-use.ts";
import { ownDisks } from "../store/own-disks.ts";
import { listMachineDisks, findStoredDisks, type MachineDisk } from "./disks.ts";
import { openVm, type Vm } from "./find.ts";
import { findOther } from "./identity.ts";
import { describeNic, nicsOf, type ListedNic } from "./nics.ts";
import { findReaches, knownMacros } from "./reach.ts";
import { findUnreadSettings } from "./settings-file.ts";
import type { AutostartStatus, Status, VmState } from "./status-types.ts";
import { listSnapshotNames } from "../store/snapshots.ts";

/** Reads the status of one VM without changing it, and without running bash. Never throws. */
export const readVmStatus = async (context: Context, hostdir: string): Promise<Status> =>
  (await examineVm(context, hostdir)).status;

/** The same, with the exit status that its error stands for. */
export async function examineVm(
  context: Context,
  hostdir: string,
): Promise<{ status: Status; exitCode: number }> {
  try {
    const status = await readStatus(context, hostdir);
    return { status, exitCode: status.error === undefined ? EXIT.ok : EXIT.io };
  } catch (error) {
    const known = error instanceof VmError ? error : fileError(`cannot open ${hostdir}`, error);
    const { message, hint, exitCode } = known;
    const { readOwnSettings } = await import("./own-settings.ts");
    const { labels } = await readOwnSettings(context, hostdir);
    const status: Status = {
      name: basename(hostdir),
      directory: hostdir,
      state: "broken",
      error: message,
      ...(labels && { labels }),
      ...(hint !== undefined && { hint }),
    };
    return { status, exitCode };
  }
}

async function readStatus(context: Context, hostdir: string): Promise<Status> {
  const own: Context = { ...context, hostdir, options: { settings: {}, additions: {}, hostdir } };
  const vm = await openVm(own, false);
  const alive =
    vm.work.state === "present"
      ? ((await findAlive(vm.work)) ?? (await findJobAtStart(hostdir, vm.work)))
      : undefined;
  // A run started by hand, with run-vm.sh, is not recorded.
  const { run } = vm.work.state === "present" ? vm.work.mark : {};
  if (!run || !alive || alive.job || run.ended !== undefined) return await buildStatus(own, vm, alive);
  const { findChanges, listChanges, optionsOfRun } = await import("./running-settings.ts");
  const now = await openVm({ ...own, options: { ...optionsOfRun(run), hostdir } }, false);
  const status = await buildStatus(own, now, alive, vm);
  const nextRun = findChanges(run, now, vm);
  return Object.keys(nextRun).length > 0
    ? { ...status, nextRun, nextRunChanges: listChanges(run, now, vm) }
    : status;
}

async function buildStatus(context: Context, vm: Vm, alive: Alive | undefined, stored = vm): Promise<Status> {
  const { settings, hostdir, work } = vm;
  const linked = work.state === "present" && work.mark.clone?.base !== undefined;
  const base = linked ? (await import("./clone-base.ts")).findBase(context, work) : undefined;
  const isRunning = work.state === "present" && alive?.job === false && isExitUnrecorded(work.mark);
  const general = {
    name: settings.GUESTNAME || basename(hostdir),
    directory: hostdir,
    labels: settings.LABELS,
    arch: settings.QEMUARCH,
    cores: settings.SOCKETS * settings.CORES,
    memoryMiB: settings.MEMORY,
    uefi: settings.UEFI,
    secureBoot: settings.SECURE_BOOT,
    tpm: settings.TPM || null,
    template: settings.TEMPLATE,
    ...(settings.UEFI && work.state === "present" && (await describeKeys(settings, work))),
    ...describeSnapshots(hostdir),
    ...(await describeClones(hostdir, work, base)),
    ...(work.state === "present" && work.mark.arriving
      ? await (await import("./arriving.ts")).describeArriving(work, alive !== undefined)
      : {}),
    autostart: await describeAutostart(context, hostdir),
    nics: nicsOf(settings).map((nic) => describeNic(context, nic)),
    ...describeFiles(context, stored),
    reaches: findReaches(context, stored, isRunning),
  };
  if (work.state !== "present")
    return {
      ...general,
      state: "stopped",
      disks: [],
      forwards: settings.FORWARDS,
      workingFiles: null,
      ...(work.state === "gone" && { gone: `${describeGone(work)}; ${describeRestore(general.snapshots)}` }),
    };
  const run = work.mark.run;
  const recorded = isRunning ? run : undefined;
  const all = readMachineDisks(stored, work, alive?.media?.disks);
  const disks = ownDisks(work.dir).map((file) => {
    const path = join(work.dir, file);
    const known = all.find(({ image }) => image === file);
    const attached = alive?.media ? known?.attached === true : isImageInUse(path);
    return {
      file,
      number: known?.number ?? null,
      bus: known?.bus ?? null,
      virtualBytes: known?.virtualBytes ?? readVirtualBytes(path) ?? null,
      actualBytes: actualBytes(path),
      ...(known?.iops && { iops: known.iops }),
      ...(known?.bytesPerSecond && { bytesPerSecond: known.bytesPerSecond }),
      ...(alive && { attached }),
      ...(attached && describeAio(recorded, known?.number, recorded?.diskAio)),
    };
  });
  const images = all
    .filter(({ image }) => !disks.some(({ file }) => file === image))
    .map((disk) => ({ ...disk, ...(disk.attached && describeAio(recorded, disk.number)) }));
  const aios = [...new Set([...disks, ...images].flatMap(({ aio }) => aio ?? []))];
  const further = [WORK.suspended, WORK.resumed].map((name) => join(work.dir, name, STATE_FILES.ram));
  const small = [WORK.efivars, TPM_STATE, WORK.consoleLog, WORK.qemuLog].map((name) =>
    workingPath(work.dir, name),
  );
  const bytes = disks.reduce((sum, disk) => sum + disk.actualBytes, 0);
  const common = {
    ...general,
    disks,
    images,
    cd: alive?.media ? (alive.media.cd ?? null) : findNextCd(stored, work),
    workingFiles: {
      directory: work.dir,
      inplace: work.inplace,
      actualBytes: [...further, ...small].reduce((sum, path) => sum + actualBytes(path), bytes),
    },
    started: run?.started ?? null,
  };
  if (!alive) {
    const ended = await findLastEnd(work);
    const rest = { ...common, forwards: settings.FORWARDS, lastEnd: ended };
    const named = settings.IMAGES.map(({ path }) => path).filter(isDiskName);
    const damage = base?.problem?.message ?? findWorkingDiskDamage(work, named);
    if (damage !== undefined) return { ...rest, state: "broken", error: damage, ...hintOf(base?.problem) };
    const suspended = await describeSuspended(work);
    if (suspended) return { ...rest, ...suspended, state: "suspended" };
    return { ...rest, state: stateAfter(ended?.end ?? work.mark.lastRun, work.mark.interruptedJob) };
  }
  const [{ describeErrors }, { hasSwtpmExited }] = await Promise.all([
    import("./alive.ts"),
    import("./tpm-state.ts"),
  ]);
  const errors = describeErrors(work, alive);
  const pid = findQemus(work)[0]?.pid ?? recorded?.pid;
  return {
    ...common,
    ...(alive.state === "suspended" && (await describeSuspended(work))),
    state: alive.state,
    job: alive.job,
    forwards: recorded ? recorded.forwards : settings.FORWARDS,
    ...(aios.length === 1 && { diskAio: aios[0]! }),
    display: recorded?.display ?? null,
    ...(recorded?.jail && { jail: recorded.jail }),
    pid: pid ?? null,
    ...(recorded && hasLimits(settings) && (await describeLimits(settings, recorded, pid))),
    uptimeSeconds: recorded ? Math.round((Date.now() - Date.parse(recorded.started)) / 1000) : null,
    ...(alive.panicked && { panicked: true }),
    nics: recorded ? await withExited(context, vm, work, general.nics) : general.nics,
    ...(hasSwtpmExited(work) && { tpmExited: true }),
    ...(errors.length > 0 && { guestErrors: errors }),
  };
}

async function describeLimits(
  settings: Vm["settings"],
  { limits: recorded }: RunRecord,
  pid: number | undefined,
): Promise<Pick<Status, "limits">> {
  const limits = (await import("./confine.ts")).readLimitStatus(settings, recorded, pid);
  return limits ? { limits } : {};
}

/** Cards of the running machine, with the programs that served them and have exited. */
async function withExited(
  context: Context,
  { settings }: Vm,
  work: Workdir,
  listed: readonly ListedNic[],
): Promise<ListedNic[]> {
  const nics = nicsOf(settings).filter(({ network: { kind } }) => kind === "passt" || kind === "net");
  if (nics.length === 0) return [...listed];
  const exited = (await import("./exited.ts")).findExited(context, work, nics);
  return listed.map((nic) => {
    const programs = exited.get(nic.number);
    return programs ? { ...nic, exited: programs } : nic;
  });
}

async function describeAutostart(context: Context, hostdir: string): Promise<AutostartStatus | null> {
  const found = (await import("./autostart.ts")).findAutostart(context, hostdir);
  if (!found) return null;
  const { manager, unit = null, plan } = found;
  const { order, delaySeconds, wait, restart } = plan;
  return { manager, unit, order, delaySeconds, wait, restart };
}

/** How a disk of the running machine is read and written. @param own recorded for all own disks, by earlier versions */
function describeAio(run: RunRecord | undefined, number: number | undefined, own?: Aio): { aio?: Aio } {
  const aio = (number === undefined ? undefined : run?.diskAios?.[number]) ?? own;
  return aio === undefined ? {} : { aio };
}

/** Does the firmware enforce Secure Boot? */
async function describeKeys(
  { SECURE_BOOT }: Vm["settings"],
  { dir }: Workdir,
): Promise<Pick<Status, "platformKey" | "secureBootEnforced">> {
  const platformKey = await readPlatformKey(join(dir, WORK.efivars));
  return { platformKey, secureBootEnforced: platformKey && !SECURE_BOOT ? null : platformKey };
}

/** Null if it cannot be read. */
async function readPlatformKey(path: string): Promise<boolean | null> {
  const { findPlatformKey } = await import("../qemu/uefi-variables.ts");
  try {
    return findPlatformKey(path) ?? null;
  } catch {
    return null;
  }
}

/** The machine's disks. Of a machine that is off, no file outside the VM's directories is opened. */
function readMachineDisks(vm: Vm, work: Workdir, attached: AttachedDisk[] | undefined): MachineDisk[] {
  const places = [vm.hostdir, work.dir].map((place) => place + sep);
  const macros = knownMacros(vm, work.dir);
  return listMachineDisks(vm, findStoredDisks(vm, work, macros), attached, (path) =>
    places.some((place) => realPath(path)?.startsWith(place)),
  );
}

/** The CD of the next run, as named in the settings. */
function findNextCd({ settings: { ISO, KEEPCD } }: Vm, { dir }: Workdir): string | null {
  const inserted = KEEPCD || lstatOf(join(dir, WORK.firstTime)) !== undefined;
  return inserted && ISO !== "" ? ISO : null;
}

/** The settings file in force, and another VM with the same UUID. */
function describeFiles(
  context: Context,
  { hostdir, work, settings: { UUID } }: Vm,
): Pick<Status, "sameAs" | "settingsFile" | "unreadSettings"> {
  const other = UUID === "" ? undefined : findOther(context, hostdir, UUID);
  const settingsFile = findGuestEnv(hostdir, work);
  const unread = findUnreadSettings(hostdir, work);
  return {
    ...(other !== undefined && { sameAs: other }),
    ...(settingsFile !== undefined && { settingsFile }),
    ...(unread !== undefined && { unreadSettings: unread }),
  };
}

/** Where the VM comes from, and what comes from it. A damaged record is an error of its own: the VM can run. */
async function describeClones(
  hostdir: string,
  work: Vm["work"],
  found: FoundBase | undefined,
): Promise<Pick<Status, "clonedFrom" | "clones" | "error" | "hint">> {
  const clone = work.state === "present" ? work.mark.clone : undefined;
  const { uuid = null, snapshot = null, base } = clone ?? {};
  const { directory = clone?.directory ?? "", movedFrom } = found ?? {};
  const facts = { directory, uuid, snapshot, linked: base !== undefined };
  const from = clone && { clonedFrom: { ...facts, ...(movedFrom !== undefined && { movedFrom }) } };
  if (!lstatOf(join(hostdir, HOST.clones))) return { ...from };
  const { inspectClones } = await import("./clones.ts");
  try {
    const clones = inspectClones(hostdir).map((one) => ({
      directory: one.directory,
      uuid: one.uuid,
      snapshot: one.snapshot,
      missing: one.state === "missing",
    }));
    return { ...from, ...(clones.length > 0 && { clones }) };
  } catch (error) {
    return { ...from, error: reasonOf(error), ...hintOf(error) };
  }
}

function hintOf(error: unknown): Pick<Status, "hint"> {
  const hint = error instanceof VmError ? error.hint : undefined;
  return hint === undefined ? {} : { hint };
}

/** Why `run` would refuse a disk, by the headers; undefined if it would not. */
function findWorkingDiskDamage({ dir }: Workdir, named: readonly string[]): string | undefined {
  for (const name of new Set([...named, ...ownDisks(dir)])) {
    const path = join(dir, name);
    try {
      const damage = findHeaderDamage(readOwnHeader(path));
      if (damage !== undefined) return `the disk ${path} is damaged: ${damage}`;
    } catch (error) {
      return hasErrno(error, "ENOENT") ? `the disk ${path} is missing` : reasonOf(error);
    }
  }
  return undefined;
}

/** What `run` does if the working files are missing. */
const describeRestore = (snapshots: Status["snapshots"]): string =>
  snapshots?.last ? `'run' restores ${snapshots.last}` : "there is no snapshot to restore";

const actualBytes = (path: string): number => (lstatOf(path)?.blocks ?? 0) * 512;

function describeSnapshots(hostdir: string): Pick<Status, "error" | "snapshots"> {
  try {
    return { snapshots: { count: listSnapshotNames(hostdir).length, last: lastOf(hostdir) } };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

/** The snapshot that `backups/LAST` points to. */
function lastOf(hostdir: string): string | null {
  const link = join(hostdir, HOST.backups, LAST);
  return lstatOf(link)?.isSymbolicLink() ? basename(readlinkSync(link)) : null;
}

const UNTIL_RUN = "; until the next run its disks are crash-consistent";

async function findLastEnd(work: Workdir): Promise<NonNullable<Status["lastEnd"]> | null> {
  const { mark } = work;
  if (isExitUnrecorded(mark)) {
    const { describeEnded, endedByGuest, inferEnd } = await import("./exit-reason.ts");
    const ended = inferEnd(work.dir, mark.run!);
    const how = describeEnded(ended);
    return { end: ended.end, at: ended.at.toISOString(), ...(!endedByGuest(ended.end) && { how }) };
  }
  // A job that succeeded is no run of the guest; one that was killed tells of its disks.
  if (mark.lastRun === undefined || (mark.onlyJobs && mark.lastRun === "powered-off")) return null;
  if (mark.interruptedJob) return { end: mark.lastRun, at: null, how: `${INTERRUPTED_JOB}${UNTIL_RUN}` };
  const { ended = null, how } = mark.run ?? {};
  return { end: mark.lastRun, at: ended, ...(how !== undefined && { how }) };
}

/** A saved state that cannot be read counts, too: only `run` needs it. */
async function describeSuspended({
  dir,
}: Workdir): Promise<Pick<Status, "suspended" | "error" | "hint"> | undefined> {
  const saved = lstatOf(join(dir, WORK.suspended));
  if (!saved) return undefined;
  const { readSuspended } = await import("../store/suspended.ts");
  const ramBytes = actualBytes(join(dir, WORK.suspended, STATE_FILES.ram));
  const suspended = { since: saved.ctime.toISOString(), ramBytes };
  try {
    return { suspended: { ...suspended, since: readSuspended(dir)!.since } };
  } catch (error) {
    const known = fileError("cannot use the saved state", error);
    return { suspended, error: known.message, ...hintOf(known) };
  }
}

function stateAfter(end: RunEnd | undefined, byJob = false): VmState {
  if (end === undefined) return "created";
  if (byJob) return "stopped"; // The guest was off.
  return end === "killed" || end === "crashed" || end === "unknown" ? "crashed" : "stopped";
}

/** A job whose rescue is being prepared, which takes minutes at times. */
async function findJobAtStart(hostdir: string, { mark: { job } }: Workdir): Promise<Alive | undefined> {
  if (job === undefined) return undefined;
  try {
    const { hasLock } = await import("../store/lock.ts");
    if (!hasLock(hostdir, job)) return undefined;
    return { state: "running", runState: "running", job: true, panicked: false };
  } catch {
    return undefined;
  }
}

/** @returns undefined when no qemu uses the working files */
export async function findAlive(work: Workdir): Promise<Alive | undefined> {
  const answers = await isListening(join(work.dir, WORK.qmp));
  if (!answers && !isAnyDiskInUse(work)) return undefined;
  return (await import("./alive.ts")).askAlive(work, answers);
}
