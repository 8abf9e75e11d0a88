import { linkSync, mkdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { beginStep } from "../lib/activity.ts";
import { commandLine } from "../lib/command-line.ts";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatDuration, formatTimestamp } from "../lib/time.ts";
import { findInsertedCd, listAttached } from "../live/attached.ts";
import { sumProcessor } from "../rescue/warm-state.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import { readArgv } from "../process/holders.ts";
import { takeSignals, throwIfInterrupted } from "../process/signals.ts";
import { findRam, saveDevices, saveRam, sendDevicesFile } from "../qemu/ram-state.ts";
import { STATE_FILES } from "../qemu/state-files.ts";
import { QmpClient } from "../qmp/client.ts";
import { QmpError } from "../qmp/errors.ts";
import { claimFiles } from "../store/claim.ts";
import {
  allocatedBytes,
  fileError,
  removeQuietly,
  requireSpace,
  syncFile,
  writeNew,
} from "../store/files.ts";
import { SUSPENDING, WORK } from "../store/layout.ts";
import { isExitUnrecorded } from "../store/mark.ts";
import { requireVm } from "../store/no-vm.ts";
import { ownDisks } from "../store/own-disks.ts";
import { remove } from "../store/remove.ts";
import {
  commitSuspended,
  findResumedRam,
  identifyDisk,
  MAPPED_RAM,
  mapsSnapshot,
  readSuspended,
  writeDescription,
  type SuspendedState,
} from "../store/suspended.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { hasPanicked } from "../vm/guest-errors.ts";
import { findQemus, findRunning } from "../vm/in-use.ts";
import { killMachine } from "../vm/kill-machine.ts";
import { withWholeVm } from "../vm/open.ts";
import { WAS_RUNNING } from "../vm/recover-suspended.ts";
import { recordMissedExit } from "../vm/record-exit.ts";
import { withMonitor } from "../vm/running.ts";

const CONNECT_MS = 10_000;

/** What a running machine tells before it is paused. */
interface Running {
  /** By a command. */
  paused: true | undefined;
  /** Of its RAM. */
  ram: string;
  cd: string | undefined;
  /** Images that are not the VM's own. */
  images: string[];
  qemu: string;
  accel: SuspendedState["accel"];
}

/**
 * Saves RAM and devices of the running VM, and ends its qemu. If that fails, the guest runs on.
 * @throws 66 if the VM is not running, 69 if qemu cannot save its state, 73 without space
 */
export const suspendVm = (context: Context): Promise<void> =>
  withWholeVm(context, "suspend", async (vm) => {
    requireVm(vm.hostdir);
    const { work } = vm;
    if (work.state !== "present" || (await findRunning(work)) === undefined) {
      const state = work.state === "present" ? readSuspended(work.dir) : undefined;
      if (!state) throw notRunning(vm);
      return log.info(`the VM is suspended already, since ${formatTimestamp(new Date(state.since))}`);
    }
    if (!isExitUnrecorded(work.mark)) throw cannot("busy", "it was started by hand, with its run script");
    const { writesRam }: ArchFacts = ARCH[vm.settings.QEMUARCH];
    if (writesRam) throw cannot("unavailable", `qemu cannot resume guests of ${vm.settings.QEMUARCH}`);
    const running = await withMonitor(work, (qmp) => inspect(work, qmp));
    const started = performance.now();
    await saveMachine(work, running);
    // The VM is suspended: a stop signal comes too late, and would leave a qemu that waits to be ended.
    using _taken = takeSignals(() => {});
    await end(context, vm, work);
    const seconds = formatDuration((performance.now() - started) / 1000);
    // Of a resumed machine's own file, only a part was written now.
    const saved = allocatedBytes(statSync(join(work.dir, WORK.suspended, STATE_FILES.ram)));
    log.success(`suspended: ${formatSize(saved)} of RAM saved, ${seconds}; resume: ${commandLine("run")}`);
  });

const cannot = (reason: "busy" | "io" | "unavailable", why: string, hint?: string): VmError =>
  new VmError(reason, `cannot suspend the VM: ${why}`, { hint });

const notRunning = ({ hostdir }: Vm): VmError =>
  new VmError("noInput", `cannot suspend: the VM in ${hostdir} is not running`, {
    hint: `start it: ${commandLine("run", "--detach")}`,
  });

/** @throws 69 or 74 if the state of this machine cannot be saved */
async function inspect(work: Workdir, qmp: QmpClient): Promise<Running> {
  const { status } = await qmp.execute("query-status");
  if (hasPanicked(work) || status === "guest-panicked")
    throw cannot("io", "the guest's kernel has panicked", `restart it: ${commandLine("restart")}`);
  if (status !== "running" && status !== "paused" && status !== "io-error")
    throw cannot("io", `its state is ${status}`);
  const [attached, cd] = await Promise.all([listAttached(qmp), findInsertedCd(qmp)]);
  if (attached.some(({ bus }) => bus === "NVME"))
    throw cannot(
      "unavailable",
      "qemu cannot save its NVMe disks",
      "use disks of another bus: VIRT, SCSI, AHCI, USB",
    );
  const { "blocked-reasons": blocked = [] } = await qmp.execute("query-migrate");
  if (blocked.length > 0) throw explainBlocked(blocked[0]!);
  const pid = findQemus(work)[0]?.pid ?? 0;
  const ram = pid === 0 ? undefined : await findRam(qmp, pid);
  if (ram === undefined)
    throw mapsSnapshot(work.dir)
      ? cannot("unavailable", MAPPED_RAM, `restart it: ${commandLine("restart")}`)
      : cannot(
          "unavailable",
          "the guest's RAM is not shared memory",
          `have it so from the next start on: ${commandLine("set", "SHARED_RAM=on")} && ${commandLine("restart")}`,
        );
  const images = attached.map(({ path }) => path).filter((path) => dirname(path) !== work.dir);
  const accel = readArgv(pid).includes("kvm") ? "kvm" : "tcg";
  return { paused: status === "paused" || undefined, ram, cd, images, qemu: qmp.version, accel };
}

/** Why qemu cannot save its state (`migrate_add_blocker`). */
const explainBlocked = (reason: string): VmError =>
  cannot(
    "unavailable",
    `qemu cannot save its state: ${reason}`,
    /VirtFS|9p/i.test(reason)
      ? "unmount the shared folders in the guest: umount -a -t 9p; and mount them again after the next run"
      : undefined,
  );

/** Saves the state, paused. From the rename on the VM is suspended, and this qemu must not run its guest again. */
async function saveMachine(work: Workdir, running: Running): Promise<void> {
  const { dir } = work;
  claimFiles(work, [WORK.suspended, WORK.resumed]);
  const directory = join(dir, SUSPENDING);
  const ram = statSync(running.ram, { bigint: true });
  const ownRam = findResumedRam(dir, ram);
  if (!ownRam) requireSpace(dir, allocatedBytes(statSync(running.ram)), "suspend the VM", "tmpdir");
  remove(directory);
  mkdirSync(directory, { mode: 0o700 });
  let qmp: QmpClient | undefined;
  try {
    const monitor = join(dir, WORK.backup);
    await sendDevicesFile(monitor, directory);
    qmp = await QmpClient.connect(monitor, CONNECT_MS);
    using _step = beginStep(() => "saving the guest's RAM");
    if (!running.paused) {
      writeNew(join(directory, WAS_RUNNING), "");
      await qmp.execute("stop");
    }
    await saveDevices(qmp);
    await keepRam(running.ram, ownRam, directory);
    for (const name of Object.values(STATE_FILES)) await syncFile(join(directory, name));
    writeDescription(directory, describe(work, running));
    // Only a command that does not take the VM's lock could have resumed the guest meanwhile.
    if ((await qmp.execute("query-status")).status !== "postmigrate")
      throw new Error("the guest was resumed meanwhile");
    throwIfInterrupted();
    commitSuspended(dir, directory);
  } catch (error) {
    removeQuietly(directory);
    const resumed =
      running.paused ??
      (await qmp?.execute("cont").then(
        () => true,
        () => false,
      ));
    const state = running.paused ? "the guest is still paused" : resumed ? "the guest runs on" : undefined;
    throw saveError(error, state);
  } finally {
    qmp?.close();
  }
}

function saveError(error: unknown, state: string | undefined): unknown {
  const message = `cannot suspend the VM${state === undefined ? "" : `, ${state}`}`;
  if (error instanceof QmpError) return new VmError("io", `${message}: ${reasonOf(error)}`, { cause: error });
  return fileError(message, error);
}

/** A resumed machine has written to its own file all the time: that is kept. */
async function keepRam(ram: string, ownRam: string | undefined, directory: string): Promise<void> {
  try {
    if (ownRam) return linkSync(ownRam, join(directory, STATE_FILES.ram));
  } catch (error) {
    // A filesystem without hard links.
    if (!hasErrno(error, "EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK")) throw error;
  }
  await saveRam(ram, directory);
}

function describe({ dir, mark }: Workdir, { cd, images, qemu, accel, paused }: Running): SuspendedState {
  const variables = join(dir, WORK.efivars);
  const own = ownDisks(dir);
  const paths = [
    ...own,
    ...(statSync(variables, { throwIfNoEntry: false }) ? [basename(variables)] : []),
    ...images,
  ];
  return {
    format: 1,
    since: new Date().toISOString(),
    qemu,
    accel,
    processor: sumProcessor(),
    cd: { path: cd ?? null, first: mark.run?.cd?.first === true },
    disks: paths.map((path) => identifyDisk(dir, path)),
    ...(paused && { paused }),
  };
}

/** Ends the qemu of a VM that is suspended. */
async function end(context: Context, { hostdir }: Vm, work: Workdir): Promise<void> {
  await killMachine(work, "");
  await recordMissedExit(context, hostdir, work);
}
