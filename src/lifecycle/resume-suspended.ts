import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { reasonOf, SignalError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { formatDuration, formatTimestamp } from "../lib/time.ts";
import type { Machine, Nic } from "../machine/types.ts";
import { interruption } from "../process/signals.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { linkCommand } from "../qemu/devices/nic.ts";
import { readLastLines } from "../qemu/last-lines.ts";
import { loadDevices, openState, type OpenState } from "../qemu/ram-state.ts";
import type { QemuSession } from "../qemu/session.ts";
import { StepTimeout } from "../qemu/wait-for-step.ts";
import { askAgent } from "../live/watch-agent.ts";
import { AGENT_MS } from "../qmp/agent.ts";
import { findChardev } from "../qmp/chardev.ts";
import type { QmpClient } from "../qmp/client.ts";
import { QmpDisconnect } from "../qmp/errors.ts";
import type { QmpCommand } from "../qmp/commands.ts";
import { HOST, STATE, WORK } from "../store/layout.ts";
import { findRamDamage } from "../store/ram-intact.ts";
import {
  acceptDisks,
  beginLoading,
  beginResumed,
  discardSuspended,
  endResuming,
  findDiskChanges,
  readSuspended,
  type SuspendedState,
} from "../store/suspended.ts";
import type { RunRecord } from "../store/mark-types.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import { readVm, type Vm } from "../vm/find.ts";
import { settleResumed } from "../vm/recover-suspended.ts";
import { findChanges, optionsAgain } from "../vm/running-settings.ts";
import { findOtherHost } from "../vm/saved-machine.ts";
import { withdrawStart } from "./run-start.ts";

/** A suspended VM, with the options of its run. */
export interface Resuming {
  context: Context;
  vm: Vm;
  state: SuspendedState;
  /** It was started with --ssh. */
  ssh: boolean;
}

/** Settings that the devices of a machine do not depend on. */
const FREE = new Set([
  "FORWARDS",
  "DISK_AIO",
  "SSH_USER",
  "LABELS",
  "CPU_QUOTA",
  "MEMORY_MAX",
  "IO_WEIGHT",
  "SLICE",
  "DISK_LIMITS",
]);

const BOOT = (): string => `boot it, and lose its RAM, as after a power cut: ${commandLine("run", "--boot")}`;

export const cannotResume = (reason: string, hint = BOOT()): VmError =>
  new VmError("io", `cannot resume the suspended VM: ${reason}`, { hint });

/**
 * Opens a suspended VM with the options of the run that was suspended.
 * @param boot discard the saved state
 * @param iso a CD was typed
 * @returns undefined if it is to be booted
 * @throws 74 if its disks have changed since, or other settings are typed
 */
export async function openSuspended(
  context: Context,
  vm: Vm,
  work: Workdir,
  { boot, iso }: { boot: boolean; iso: boolean },
): Promise<Resuming | undefined> {
  if (boot) {
    discardSuspended(work.dir);
    log.info("the saved state was discarded");
    return undefined;
  }
  let state: SuspendedState;
  try {
    state = readSuspended(work.dir)!;
  } catch (error) {
    throw cannotResume(reasonOf(error));
  }
  if (iso)
    throw cannotResume(
      "another CD was named",
      `change the CD once it runs: ${commandLine("cd", "IMAGE")}\n${BOOT()}`,
    );
  const changes = findDiskChanges(work.dir, state);
  if (changes.length > 0) throw cannotResume(`since it was suspended, ${changes.join(", ")}`);
  const record = work.mark.run;
  const options = record ? optionsAgain(record.typed, context.options) : context.options;
  const own = { ...context, options };
  const next = await readVm(own, vm.hostdir, true, { work, lenient: record?.settings !== undefined });
  if (record?.settings === undefined)
    return { context: own, vm: next, state, ssh: record?.typed.ssh === true };
  return { context: own, vm: await readAsSuspended(own, next, work, record), state, ssh: record.typed.ssh };
}

/** The VM with the settings of its suspended machine. Changed ones count from the next boot on. */
async function readAsSuspended(context: Context, next: Vm, work: Workdir, record: RunRecord): Promise<Vm> {
  const { settings } = record;
  // Another machine may have the port meanwhile; that there is a display decides on devices.
  const free = next.settings.PORT === undefined || settings?.PORT === "" ? FREE : new Set([...FREE, "PORT"]);
  const kept = Object.fromEntries(Object.entries(settings ?? {}).filter(([name]) => !free.has(name)));
  const { settings: typedSettings, additions, hostdir } = context.options;
  const { IMAGES = [], FORWARDS = [] } = additions;
  const options = { settings: { ...typedSettings, ...kept }, additions: { IMAGES, FORWARDS }, hostdir };
  const now = await readVm({ ...context, options }, next.hostdir, true, { lenient: true, work });
  const changed = Object.keys(findChanges(record, now, next)).filter((name) => !FREE.has(name));
  const typed = [
    ...findOthers(record.typed.settings, typedSettings).filter((name) => changed.includes(name)),
    ...findOthers(record.typed.additions, additions).filter((name) => !FREE.has(name)),
  ];
  if (typed.length > 0)
    throw cannotResume(`${typed.join(", ")}: the options of this command line are those of another machine`);
  if (changed.length > 0)
    log.info(`changed since it was suspended, and in force from the next boot on: ${changed.join(", ")}`);
  return now;
}

/** Pure: the names of those that are not as they were. */
const findOthers = (before: Readonly<Record<string, unknown>>, now: object): string[] =>
  Object.entries(now).flatMap(([name, value]) =>
    JSON.stringify(before[name]) === JSON.stringify(value) ? [] : [name],
  );

/** @throws 74 if qemu or the processor is another one, or the machine has other disks */
export function requireSameMachine(
  { state, vm }: Resuming,
  { accel, disks }: Machine,
  capabilities: Capabilities,
): void {
  const own = vm.work.state === "present" ? `${vm.work.dir}/` : "";
  const known = new Set(state.disks.map(({ path }) => path));
  const other = disks.find(({ path }) => !known.has(path.startsWith(own) ? path.slice(own.length) : path));
  if (other) throw cannotResume(`it was suspended without the disk ${other.path}`);
  const otherHost = findOtherHost(state, accel, capabilities, "suspended");
  if (otherHost !== undefined) throw cannotResume(otherHost);
}

/** Opens the saved state. @throws 74 if the RAM of a linked clone is missing, or damaged */
export async function openResumed(
  { cacheDirectory }: Context,
  { dir, mark }: Workdir,
  { mapped }: SuspendedState,
): Promise<OpenState> {
  const directory = join(dir, WORK.suspended);
  if (!mapped) return openState(directory);
  const { base } = mark.clone ?? {};
  if (!base) throw cannotResume("the record of the snapshot that it was cloned from is missing");
  const place = join(dir, WORK.baseLink, HOST.backups, base.name);
  const damage = await findRamDamage(place, cacheDirectory);
  if (damage !== undefined) throw cannotResume(`${place} is damaged: ${damage}`);
  const ram = join(place, STATE.ram);
  try {
    return openState(directory, ram);
  } catch (error) {
    throw cannotResume(`${ram}: ${reasonOf(error)}`);
  }
}

/**
 * Loads the state into a machine that waits for it, and resumes the guest. If that fails before, the machine is ended, and the
 * state is as it was.
 * @param devices qemu's descriptor of the devices' state
 */
export async function resumeGuest(
  work: Workdir,
  machine: QemuSession,
  devices: number,
  downLinks: readonly Nic[],
  state: SuspendedState,
): Promise<void> {
  try {
    beginLoading(work.dir, state);
    await loadDevices(machine.qmp, devices, machine.ended);
    beginResumed(work.dir);
    const commands: QmpCommand[] = [
      ...downLinks.map(({ number }) => linkCommand(number, "down")),
      ...(state.paused ? [] : [["cont"] as const]),
    ];
    const replies = await Promise.allSettled(machine.qmp.executeBatch(commands));
    const failed = replies.find((reply) => reply.status === "rejected");
    if (failed) throw failed.reason;
    endResuming(work.dir);
  } catch (error) {
    await machine.end();
    if (settleResumed(work))
      throw error instanceof QmpDisconnect ? await exitedError(work, machine.ended) : error;
    acceptDisks(work.dir);
    withdrawStart(work);
    if (interruption.aborted || error instanceof SignalError) throw error;
    const output = readLastLines(join(work.dir, WORK.qemuLog));
    const again = `try again, from the same state: ${commandLine("run")}\n`;
    throw cannotResume(
      `qemu cannot load its state (${reasonOf(error)})${output ? `:\n  ${output}` : ""}`,
      `${error instanceof StepTimeout ? again : ""}${BOOT()}`,
    );
  }
}

/** @throws 74 if the qemu of a guest that was just resumed has exited */
export async function requireAlive(work: Workdir, { qmp, ended }: QemuSession): Promise<void> {
  const answers = await qmp.execute("query-status").then(
    () => true,
    (error: unknown) => !(error instanceof QmpDisconnect),
  );
  if (!answers) throw await exitedError(work, ended);
}

async function exitedError(work: Workdir, ended: QemuSession["ended"]): Promise<VmError> {
  const { status, signal } = await ended;
  const output = readLastLines(join(work.dir, WORK.qemuLog));
  return new VmError(
    "io",
    `the guest was resumed, but qemu exited (${signal ?? `status ${status}`})${output ? `:\n  ${output}` : ""}`,
    { hint: `its RAM is lost, as after a power cut; boot it: ${commandLine("run", "--detach")}` },
  );
}

/** Sets the guest's clock, which was stopped, by its agent, and reports the resumption. */
export async function reportResumed(
  work: Workdir,
  qmp: QmpClient,
  { since, paused }: SuspendedState,
): Promise<void> {
  const seconds = (Date.now() - Date.parse(since)) / 1000;
  const when = `suspended ${formatTimestamp(new Date(since))}, ${formatDuration(seconds)} ago`;
  if (paused)
    return log.info(`guest loaded (${when}); it is paused, as it was then; go on: ${commandLine("resume")}`);
  const problem = await setClock(work, qmp).catch((error: unknown) => reasonOf(error));
  log.info(
    problem === undefined
      ? `guest resumed (${when}); its clock is set`
      : `guest resumed (${when}); its clock is not set, as ${problem}: it reads the time from its hardware clock or by NTP`,
  );
}

/** @returns why it cannot be set */
async function setClock(work: Workdir, qmp: QmpClient): Promise<string | undefined> {
  if (!(await findChardev(qmp, WORK.agent))?.guestOpen) return "it has no guest agent";
  await askAgent(work.dir, (agent) => agent.execute("guest-set-time", { time: Date.now() * 1e6 }, AGENT_MS));
  return undefined;
}
