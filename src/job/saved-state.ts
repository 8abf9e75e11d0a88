import { closeSync, mkdirSync, renameSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { SignalError } from "../lib/errors.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import type { Machine } from "../machine/types.ts";
import { interruption, throwIfInterrupted } from "../process/signals.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import { buildHotpluggedDevices } from "../qemu/devices/disk.ts";
import { startQemu, type QemuSession } from "../qemu/session.ts";
import type { QmpEvent } from "../qmp/events.ts";
import { Channel } from "../rescue/channel.ts";
import {
  giveUp,
  hasFailed,
  isTrusted,
  removeOthers,
  stateDirectory,
  stateName,
} from "../rescue/warm-state.ts";
import { remove } from "../store/remove.ts";
import { openForReading } from "../lib/read-file.ts";
import { createFile, removeQuietly, syncDirectory } from "../store/files.ts";
import { PARTIAL, RUN_FILES, WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import type { Workdir } from "../store/workdir.ts";
import { CHANNELS, type RescueRun } from "./rescue-machine.ts";
import { randomBytes } from "../lib/crypto.ts";

/** Time limit for a restored rescue to find its disks; after that it is booted. */
const UP_MS = 20_000;
/** Time limit for the boot whose state is saved. */
const READY_MS = 60_000;
const MIGRATION_MS = 60_000;

/** A running rescue, and the open channel to its runner. */
export interface RunningRescue {
  machine: QemuSession;
  control: Channel;
}

/**
 * Starts the rescue from its saved state, which is created first if there is none.
 * @returns undefined if that fails, for whatever reason: the caller boots the rescue instead
 */
export async function resumeRescue(
  context: Context,
  work: Workdir,
  run: RescueRun,
  onEvent: (event: QmpEvent) => void,
): Promise<RunningRescue | undefined> {
  const { machine, rescue } = run;
  const { system } = rescue;
  const { warm }: ArchFacts = ARCH[machine.arch];
  const canSave =
    warm === true &&
    rescue.settings.RESCUE_WARM === "auto" &&
    context.cacheDirectory !== undefined &&
    system.kind === "own" &&
    system.vmlinux !== undefined &&
    machine.firmware === undefined &&
    // A resumed kernel knows the tables of its boot.
    machine.smbios.length === 0 &&
    machine.generationId;
  if (!canSave) return undefined;
  let state: string | undefined;
  try {
    state = statePath(context.cacheDirectory!, run, [system.vmlinux!, system.initrd]);
    if (hasFailed(state)) return undefined;
    if (!isTrusted(state)) await createState(state, run);
    return await resume(work, run, state, onEvent);
  } catch (error) {
    if (error instanceof SignalError) throw error;
    throwIfInterrupted();
    if (state) giveUp(state);
    for (const name of RUN_FILES) remove(join(work.dir, name));
    return undefined;
  }
}

/** The machine without any part of a guest: common to all jobs, and first on the bus. */
const bareMachine = (machine: Machine): Machine => ({
  ...machine,
  name: "rescue",
  disks: [],
  nics: [],
  shares: [],
  kernel: machine.kernel && {
    ...machine.kernel,
    append: machine.kernel.append.replace(/ rescue\.disks=\d+$/, " rescue.warm"),
  },
  files: { qmp: WORK.qmp, monitor: WORK.monitor, console: WORK.console, consoleLog: WORK.rescueConsoleLog },
  channels: CHANNELS.map(({ name, socket }) => ({ name, socket })),
});

function statePath(cache: string, run: RescueRun, files: string[]): string {
  const argv = buildQemuArgv(bareMachine(run.machine), run.capabilities);
  const { version } = run.capabilities;
  return join(
    stateDirectory(cache),
    stateName({ profile: run.rescue.name, argv, qemuVersion: version, files }),
  );
}

/** Boots the rescue without any part of a guest, and saves its state atomically. */
async function createState(path: string, run: RescueRun): Promise<void> {
  const directory = dirname(path);
  const beside = join(directory, `${PARTIAL}${process.pid}`);
  removeQuietly(beside);
  mkdirSync(beside, { mode: 0o700 });
  try {
    await saveState(beside, buildQemuArgv(bareMachine(run.machine), run.capabilities));
    renameSync(join(beside, STATE), path);
    syncDirectory(directory);
    removeOthers(directory, run.rescue.name, basename(path));
  } finally {
    removeQuietly(beside);
  }
}

const STATE = "state";

/** Boots the bare machine, and saves its memory as soon as the runner is ready. */
async function saveState(directory: string, argv: string[]): Promise<void> {
  const logPath = join(directory, WORK.qemuLog);
  const migrated = Promise.withResolvers<void>();
  migrated.promise.catch(() => {});
  // qemu starts cat to write the file, which the sandbox would forbid. This machine runs no guest's code.
  closeSync(createFile(join(directory, STATE)));
  const machine = await startQemu({
    argv: argv.map((word, at) =>
      argv[at - 1] === "-sandbox" ? "on,obsolete=deny,elevateprivileges=deny" : word,
    ),
    directory,
    monitor: join(directory, WORK.monitor),
    logPath,
    onEvent: (event) => onMigrationEvent(event, migrated),
  });
  try {
    const ready = Promise.withResolvers<void>();
    using _control = await Channel.connect(join(directory, WORK.control), (line) => {
      if (line === "ready") ready.resolve();
    });
    await waitForStep(READY_MS, machine, ready.promise);
    await machine.qmp.execute("stop");
    await machine.qmp.execute("migrate-set-capabilities", MIGRATION_EVENTS);
    await machine.qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 });
    await machine.qmp.execute("migrate", { uri: `exec:cat >${STATE}` });
    await waitForStep(MIGRATION_MS, machine, migrated.promise);
  } finally {
    await machine.end();
  }
}

async function resume(
  work: Workdir,
  { machine: booted, capabilities }: RescueRun,
  state: string,
  onEvent: (event: QmpEvent) => void,
): Promise<RunningRescue> {
  const resumed = { ...booted, kernel: undefined, resumed: true };
  const argv = buildQemuArgv(resumed, capabilities);
  const logPath = join(work.dir, WORK.qemuLog);
  remove(logPath);
  const migrated = Promise.withResolvers<void>();
  migrated.promise.catch(() => {});
  const fd = openForReading(state);
  let running: QemuSession;
  try {
    running = await startQemu({
      argv,
      directory: work.dir,
      monitor: join(work.dir, WORK.monitor),
      logPath,
      furtherFds: [fd],
      onEvent: (event) => {
        onMigrationEvent(event, migrated);
        onEvent(event);
      },
    });
  } finally {
    closeSync(fd);
  }
  const up = Promise.withResolvers<void>();
  let control: Channel | undefined;
  try {
    // Before the state is loaded: in the saved rescue this port is connected.
    control = await Channel.connect(join(work.dir, WORK.control), (line) => {
      if (line === "up") up.resolve();
    });
    await running.qmp.execute("migrate-set-capabilities", MIGRATION_EVENTS);
    await running.qmp.execute("migrate-incoming", { uri: "fd:3" });
    await waitForStep(MIGRATION_MS, running, migrated.promise);
    for (const device of buildHotpluggedDevices(resumed)) await running.qmp.execute("device_add", device);
    await running.qmp.execute("cont");
    const time = (Date.now() / 1000).toFixed(3);
    control.send(`go ${booted.disks.length} ${time} ${randomBytes(64).toString("hex")}`);
    await waitForStep(UP_MS, running, up.promise);
    return { machine: running, control };
  } catch (error) {
    control?.[Symbol.dispose]();
    await running.end();
    throw error;
  }
}

const MIGRATION_EVENTS = { capabilities: [{ capability: "events", state: true }] } as const;

function onMigrationEvent({ event, data }: QmpEvent, migrated: PromiseWithResolvers<void>): void {
  if (event !== "MIGRATION") return;
  if (data.status === "completed") migrated.resolve();
  if (data.status === "failed") migrated.reject(new Error("cannot load the saved state"));
}

/** Waits for a step, at most `ms`. @throws on timeout, on a stop signal, or if qemu exits first */
async function waitForStep(ms: number, machine: QemuSession, step: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("timed out")), ms);
  const stop = (): void => late.reject(interruption.reason);
  interruption.addEventListener("abort", stop, { once: true });
  const exited = machine.ended.then(() => {
    throw new Error("qemu exited");
  });
  try {
    await Promise.race([step, late.promise, exited]);
    throwIfInterrupted();
  } finally {
    clearTimeout(timer);
    interruption.removeEventListener("abort", stop);
    exited.catch(() => {});
  }
}
