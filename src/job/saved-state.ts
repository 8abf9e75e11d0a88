import { dirname, join } from "node:path";
import { reasonOf, SignalError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { shellQuote } from "../lib/shell.ts";
import { formatTimestamp } from "../lib/time.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import type { Firmware } from "../machine/types.ts";
import { interruption, throwIfInterrupted } from "../process/signals.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import { buildHotpluggedDevices } from "../qemu/devices/disk.ts";
import { linkCommand } from "../qemu/devices/nic.ts";
import { loadDevices } from "../qemu/ram-state.ts";
import { QUICK_MEMORY, startQemu, type QemuSession } from "../qemu/session.ts";
import { waitForStep } from "../qemu/wait-for-step.ts";
import { identifyVariables } from "../qemu/uefi-variables.ts";
import type { QmpEvent } from "../qmp/events.ts";
import { Channel } from "../rescue/channel.ts";
import {
  giveUp,
  hasFailed,
  keepState,
  MAX_STATE_VARIABLES_BYTES,
  openWarmState,
  stateDirectory,
  stateName,
  type WarmState,
} from "../rescue/warm-state.ts";
import { readSmallBytes } from "../lib/read-file.ts";
import { removeAbandoned } from "../store/abandoned.ts";
import { replaceFile } from "../store/files.ts";
import { remove } from "../store/remove.ts";
import { PARTIAL, RUN_FILES, WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import type { Workdir } from "../store/workdir.ts";
import type { RescueRun } from "./rescue-machine.ts";
import { bareMachine, hasSpaceForState, NewState, resumedMachine } from "./save-state.ts";
import { randomBytes } from "../lib/crypto.ts";

/** Time limit for a restored rescue to find its disks; after that it is booted. */
const UP_MS = 60_000;

/** What a rescue says by qemu, and by its channel. */
export interface Listeners {
  onEvent(event: QmpEvent): void;
  hear(line: string): void;
  /** Called while qemu starts: its guest is paused, and no disk is written to. */
  recordStart(): void;
}

/** The start could not be recorded, which is no fault of the saved state. */
class UnrecordedStart extends Error {}

/** A running rescue, and the open channel to its runner. */
export interface RunningRescue {
  machine: QemuSession;
  control: Channel;
  /** Its state is stored, or found useless; never rejects. */
  settled?: Promise<void>;
}

/**
 * Starts the rescue from its saved state, which is created first if there is none.
 * @returns undefined if that fails, for whatever reason: the caller boots the rescue instead
 */
export async function resumeRescue(
  context: Context,
  work: Workdir,
  run: RescueRun,
  listeners: Listeners,
): Promise<RunningRescue | undefined> {
  const { machine, rescue } = run;
  const { system } = rescue;
  const { warm }: ArchFacts = ARCH[machine.arch];
  const canSave =
    warm === true &&
    rescue.settings.RESCUE_WARM === "auto" &&
    context.cacheDirectory !== undefined &&
    system.kind === "own" &&
    (machine.firmware ? machine.firmware.vars.format === "raw" : system.vmlinux !== undefined) &&
    // A resumed kernel knows the tables of its boot.
    machine.smbios.length === 0 &&
    machine.generationId !== undefined;
  if (!canSave) return undefined;
  let path: string | undefined;
  try {
    const directory = stateDirectory(context.cacheDirectory!);
    const variables = machine.firmware && readFlash(machine.firmware);
    const name = nameState(run, variables);
    if (name === undefined) return undefined;
    path = join(directory, name);
    if (hasFailed(path)) return undefined;
    const found = openWarmState(path, machine.memoryMiB * 2 ** 20);
    if (found) return await useState(path, found, work, run, listeners);
    if (!hasSpaceForState(directory)) return undefined;
    return await makeState(path, variables, work, run, listeners);
  } catch (error) {
    if (error instanceof SignalError) throw error;
    if (error instanceof UnrecordedStart) throw error.cause;
    throwIfInterrupted();
    if (path !== undefined) abandonState(path, error);
    for (const name of RUN_FILES) remove(join(work.dir, name));
    return undefined;
  }
}

/** Jobs are slower from now on, which no later one says. */
function abandonState(path: string, error: unknown): void {
  const failed = giveUp(path);
  const until = failed
    ? ` until ${formatTimestamp(failed.until)}, and take longer; to try again before: rm ${shellQuote(failed.path)}`
    : ", and takes longer";
  log.warn(
    `cannot use a saved state of the rescue: ${reasonOf(error)}; ${failed ? "jobs boot it" : "this job boots it"}${until}`,
  );
}

async function useState(
  path: string,
  state: WarmState,
  work: Workdir,
  run: RescueRun,
  listeners: Listeners,
): Promise<RunningRescue> {
  try {
    adoptVariables(run.machine.firmware, state);
    const resumed = await resume(work, run, state, listeners);
    // Of a job that was killed while it saved one.
    removeAbandoned(dirname(path), PARTIAL);
    return { ...resumed, settled: keepState(path, state).finally(() => state[Symbol.dispose]()) };
  } catch (error) {
    state[Symbol.dispose]();
    throw error;
  }
}

/** The job does not wait until the state is stored. */
async function makeState(
  path: string,
  variables: Buffer | undefined,
  work: Workdir,
  run: RescueRun,
  listeners: Listeners,
): Promise<RunningRescue> {
  const state = new NewState(path, run, variables);
  try {
    if (run.machine.firmware) {
      log.info("saving the state of the rescue: later jobs start faster");
      await state.saved;
      adoptVariables(run.machine.firmware, state.files);
    }
    const resumed = await resume(work, run, state.files, listeners, state.saved);
    const alias = state.files.variables && nameState(run, state.files.variables);
    const settled = state
      .store(alias)
      .catch((error: unknown) => {
        if (!interruption.aborted) abandonState(path, error);
      })
      .finally(() => state[Symbol.asyncDispose]());
    return { ...resumed, settled };
  } catch (error) {
    await state[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Has a guest's UEFI variables be those of the state: what a boot would have made of them. qemu writes all of them when it
 * loads the state, in place: to a file that has them already.
 */
function adoptVariables(firmware: Firmware | undefined, { variables }: WarmState): void {
  if (firmware && variables && readFlash(firmware)?.equals(variables) === false)
    replaceFile(firmware.vars.path, variables);
}

const readFlash = ({ vars }: Firmware): Buffer | undefined =>
  readSmallBytes(vars.path, MAX_STATE_VARIABLES_BYTES);

/** @returns undefined for UEFI variables that cannot be compared */
function nameState(
  { machine, rescue, capabilities }: RescueRun,
  content: Buffer | undefined,
): string | undefined {
  const { firmware, kernel } = machine;
  const variables = content && identifyVariables(content);
  if (firmware && variables === undefined) return undefined;
  return stateName({
    profile: rescue.name,
    argv: buildQemuArgv(bareMachine(machine), capabilities),
    qemuVersion: capabilities.version,
    files: [kernel!.image, kernel!.initrd, ...(firmware ? [firmware.code.path] : [])],
    variables,
  });
}

/** Descriptors of qemu's, behind stdin, stdout and stderr. */
const DEVICES_FD = 3;
const RAM_FD = 4;

/** @param saved resolves when the state is complete; qemu is started before */
async function resume(
  work: Workdir,
  { machine: booted, capabilities, confine }: RescueRun,
  state: WarmState,
  { onEvent, hear, recordStart }: Listeners,
  saved?: Promise<void>,
): Promise<RunningRescue> {
  const resumed = resumedMachine(booted, `/proc/self/fd/${RAM_FD}`);
  const argv = buildQemuArgv(resumed, capabilities);
  const logPath = join(work.dir, WORK.qemuLog);
  remove(logPath);
  let unrecorded: UnrecordedStart | undefined;
  const record = async (): Promise<void> => {
    try {
      recordStart();
    } catch (cause) {
      unrecorded = new UnrecordedStart("", { cause });
    }
  };
  const running = await startQemu({
    argv,
    jail: await confine(resumed, work.dir),
    directory: work.dir,
    monitor: join(work.dir, WORK.monitor),
    logPath,
    furtherFds: [state.devices, state.ram],
    env: QUICK_MEMORY,
    onSpawn: record,
    onEvent,
  });
  const up = Promise.withResolvers<void>();
  let control: Channel | undefined;
  try {
    if (unrecorded) throw unrecorded;
    // Before the state is loaded: in the saved rescue this port is connected.
    control = await Channel.connect(join(work.dir, WORK.control), (line) => {
      if (line === "up") up.resolve();
      else hear(line);
    });
    if (saved) await waitForStep(undefined, running.ended, saved);
    const { qmp } = running;
    await loadDevices(qmp, DEVICES_FD, running.ended, false);
    const time = (Date.now() / 1000).toFixed(3);
    const network = booted.nics.length > 0 ? "" : " offline";
    control.send(`go ${booted.disks.length} ${time} ${randomBytes(64).toString("hex")}${network}`);
    const plugs = buildHotpluggedDevices(resumed).map((device) => ["device_add", device] as const);
    const links = booted.nics.length > 0 ? [] : [linkCommand(1, "down")];
    await Promise.all(qmp.executeBatch([...links, ...plugs, ["cont"]]));
    await waitForStep(UP_MS, running.ended, up.promise);
    return { machine: running, control };
  } catch (error) {
    control?.[Symbol.dispose]();
    await running.end();
    throw error;
  }
}
