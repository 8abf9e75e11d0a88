import { closeSync, constants, ftruncateSync, linkSync, mkdirSync, openSync, renameSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Machine } from "../machine/types.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import { startQemu } from "../qemu/session.ts";
import { Channel } from "../rescue/channel.ts";
import { markVolatile, openState, removeOthers, STATE, type OpenState } from "../rescue/warm-state.ts";
import { hasErrno } from "../lib/errors.ts";
import { lstatOf } from "../lib/read-file.ts";
import {
  createFile,
  freeBytes,
  listDirectory,
  removeQuietly,
  syncDirectory,
  writeNew,
} from "../store/files.ts";
import { PARTIAL, WORK } from "../store/layout.ts";
import { CHANNELS, type RescueRun } from "./rescue-machine.ts";
import { MIGRATION, Migration, waitForStep } from "./migration.ts";

/** Time limit for the boot whose state is saved. */
const READY_MS = 300_000;
/** Room for a state: what the rescue touches of its RAM, and reserve. Without it, a write to the RAM would kill qemu. */
const ROOM_BYTES = 768 << 20;
/** Age of a partial state from which it may be another process's leftover. */
const NEW_MS = 10_000;

/** The machine without any part of a guest: common to all jobs, and first on the bus. Its paths are relative. */
export const bareMachine = (machine: Machine): Machine => ({
  ...machine,
  name: "rescue",
  ram: { path: STATE.ram, shared: true },
  firmware: machine.firmware && {
    ...machine.firmware,
    vars: { ...machine.firmware.vars, path: STATE.variables },
  },
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

/**
 * Boots the rescue without any part of a guest, and saves its state atomically.
 * @param variables content of the flash chip with UEFI variables
 * @param nameFor the state's name, by the content of the chip, which the boot changes
 * @returns the state, open; undefined if there is no room for it
 * @throws if the boot or the saving fails; there is no state then
 */
export async function saveState(
  path: string,
  run: RescueRun,
  variables: Buffer | undefined,
  nameFor: (variables: Buffer) => string | undefined,
): Promise<OpenState | undefined> {
  const directory = dirname(path);
  removeAbandoned(directory);
  if (freeBytes(directory) < ROOM_BYTES) return undefined;
  const beside = join(directory, `${PARTIAL}${process.pid}`);
  removeQuietly(beside);
  mkdirSync(beside, { mode: 0o700 });
  const lock = lockPartial(beside);
  let state: OpenState | undefined;
  try {
    const ram = createFile(join(beside, STATE.ram));
    ftruncateSync(ram, run.machine.memoryMiB * 2 ** 20);
    closeSync(ram);
    if (variables) writeNew(join(beside, STATE.variables), variables);
    await bootAndSave(beside, buildQemuArgv(bareMachine(run.machine), run.capabilities));
    markVolatile(beside);
    state = openState(beside, run.machine.memoryMiB * 2 ** 20);
    if (!state) throw new Error("cannot open the saved state");
    publish(beside, path);
    const alias = state.variables && nameFor(state.variables);
    if (alias !== undefined && alias !== basename(path)) linkState(path, join(directory, alias));
    syncDirectory(directory);
    removeOthers(directory, run.rescue.name, basename(path));
    return state;
  } catch (error) {
    state?.[Symbol.dispose]();
    throw error;
  } finally {
    removeQuietly(beside);
    if (lock !== undefined) closeSync(lock);
  }
}

/** Boots the bare machine, and saves its state as soon as the runner is ready. */
async function bootAndSave(directory: string, argv: string[]): Promise<void> {
  const logPath = join(directory, WORK.qemuLog);
  const migration = new Migration();
  // qemu starts cat to write the file, which the sandbox would forbid. This machine runs no guest's code.
  closeSync(createFile(join(directory, STATE.devices)));
  const machine = await startQemu({
    argv: argv.map((word, at) =>
      argv[at - 1] === "-sandbox" ? "on,obsolete=deny,elevateprivileges=deny" : word,
    ),
    directory,
    monitor: join(directory, WORK.monitor),
    logPath,
    onEvent: migration.onEvent,
  });
  try {
    const ready = Promise.withResolvers<void>();
    using _control = await Channel.connect(join(directory, WORK.control), (line) => {
      if (line === "ready") ready.resolve();
    });
    await waitForStep(READY_MS, machine, ready.promise);
    await machine.qmp.execute("stop");
    await machine.qmp.execute("migrate-set-capabilities", MIGRATION.capabilities);
    await machine.qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 });
    await machine.qmp.execute("migrate", { uri: `exec:cat >${STATE.devices}` });
    await waitForStep(MIGRATION.limitMs, machine, migration.completed);
  } finally {
    await machine.end();
  }
  for (const name of listDirectory(directory))
    if (!(Object.values(STATE) as string[]).includes(name)) removeQuietly(join(directory, name));
}

/** Gives a complete state its name, unless another process was first. */
function publish(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (!hasErrno(error, "EEXIST", "ENOTEMPTY")) throw error;
  }
}

/** The same state under a second name. Best effort. */
function linkState(from: string, to: string): void {
  if (lstatOf(to)) return;
  const beside = `${join(dirname(to), PARTIAL)}${process.pid}`;
  try {
    mkdirSync(beside, { mode: 0o700 });
    for (const name of Object.values(STATE)) linkSync(join(from, name), join(beside, name));
    renameSync(beside, to);
  } catch {
    removeQuietly(beside);
  }
}

/** Held while the directory is written to. @returns undefined if the file system cannot lock directories */
function lockPartial(directory: string): number | undefined {
  const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;
  let fd: number | undefined;
  try {
    fd = openSync(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (flock(fd, LOCK_EX | LOCK_NB)) return fd;
  } catch {
    // As below.
  }
  if (fd !== undefined) closeSync(fd);
  return undefined;
}

/** Removes what killed processes have left. */
function removeAbandoned(directory: string): void {
  for (const name of listDirectory(directory)) {
    const path = join(directory, name);
    const stats = name.startsWith(PARTIAL) ? lstatOf(path) : undefined;
    if (!stats || Date.now() - stats.mtimeMs < NEW_MS) continue;
    const lock = lockPartial(path);
    if (lock === undefined) continue;
    removeQuietly(path);
    closeSync(lock);
  }
}
