import { closeSync, constants, ftruncateSync, linkSync, mkdirSync, openSync, renameSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Machine } from "../machine/types.ts";
import { O_TMPFILE } from "../process/open-flags.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import { saveDevices, saveRam, sendDevicesDescriptor } from "../qemu/ram-state.ts";
import { QUICK_MEMORY, startQemu, type QemuSession } from "../qemu/session.ts";
import { waitForStep } from "../qemu/wait-for-step.ts";
import { QmpClient } from "../qmp/client.ts";
import { Channel } from "../rescue/channel.ts";
import {
  markVolatile,
  openWarmState,
  readStateVariables,
  removeOthers,
  WARM_FILES,
  type WarmState,
} from "../rescue/warm-state.ts";
import { hasErrno } from "../lib/errors.ts";
import { lstatOf } from "../lib/read-file.ts";
import { lockTemporary, removeAbandoned } from "../store/abandoned.ts";
import { createFile, freeBytes, listDirectory, removeQuietly, writeNew } from "../store/files.ts";
import { PARTIAL, WORK } from "../store/layout.ts";
import { CHANNELS, isJobShare, rescueNic, type RescueRun } from "./rescue-machine.ts";

/** Time limit for the boot whose state is saved. */
const READY_MS = 120_000;
/** Space for a state: what the rescue touches of its RAM, and reserve. Without it, a write to the RAM would kill qemu. */
const NEEDED_BYTES = 768 << 20;
/** A filesystem in memory: the boot takes longer if its RAM is a file on a disk. */
const MEMORY = "/dev/shm";
/** The RAM's descriptor in the machine that is saved. */
const RAM_FD = 3;

const { O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_WRONLY } = constants;

/** In the saved machine: the directory of its shares, which its guest does not mount. */
const NO_SHARE = "share";

/** The machine without any part of a guest: common to all jobs, and first on the bus. Its paths are relative. */
export const bareMachine = (machine: Machine): Machine => ({
  ...machine,
  name: "rescue",
  ram: { path: `/proc/self/fd/${RAM_FD}`, shared: true },
  firmware: machine.firmware && {
    ...machine.firmware,
    vars: { ...machine.firmware.vars, path: WARM_FILES.variables },
  },
  disks: [],
  nics: [rescueNic([])],
  shares: machine.shares.filter(isJobShare).map((share) => ({ ...share, path: NO_SHARE })),
  kernel: machine.kernel && {
    ...machine.kernel,
    append: machine.kernel.append.replace(/ rescue\.disks=\d+$/, " rescue.warm"),
  },
  files: { qmp: WORK.qmp, monitor: WORK.monitor, console: WORK.console, consoleLog: WORK.rescueConsoleLog },
  channels: CHANNELS.map(({ name, socket }) => ({ name, socket })),
});

/**
 * The machine that continues from the state of the bare one: the same devices, and after them what that does not have. Without
 * a network the card's link is to be down.
 */
export const resumedMachine = (machine: Machine, ramPath: string): Machine => ({
  ...machine,
  ram: { path: ramPath, shared: false },
  nics: machine.nics.length > 0 ? machine.nics : [rescueNic([])],
  shares: machine.shares.toSorted((a, b) => Number(isJobShare(b)) - Number(isJobShare(a))),
  kernel: undefined,
  resumed: true,
});

/**
 * Boots the rescue without any part of a guest, and saves its state. The job that needs it resumes it at once, from open
 * files; meanwhile it is stored.
 */
export class NewState {
  /** @throws if the boot or the saving fails: then there is no state */
  readonly saved: Promise<void>;
  readonly files: WarmState;
  readonly #beside: string;
  readonly #ramInMemory: boolean;
  readonly #lock: number | undefined;
  /** The machine that is saved; `end` is called when it is saved. */
  #machine: QemuSession | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  /**
   * @param path of the complete state
   * @param variables content of the flash chip with UEFI variables
   */
  constructor(
    private readonly path: string,
    private readonly run: RescueRun,
    variables: Buffer | undefined,
  ) {
    const ramBytes = run.machine.memoryMiB * 2 ** 20;
    const directory = dirname(path);
    removeAbandoned(directory, PARTIAL);
    this.#beside = join(directory, `${PARTIAL}${process.pid}`);
    removeQuietly(this.#beside);
    mkdirSync(this.#beside, { mode: 0o700 });
    mkdirSync(join(this.#beside, NO_SHARE), { mode: 0o700 });
    this.#lock = lockTemporary(this.#beside);
    // Now: after the RAM has been written, it would take until that is on the disk.
    markVolatile(this.#beside);
    const memory = openInMemory();
    this.#ramInMemory = memory !== undefined;
    const ram = memory ?? createFile(join(this.#beside, WARM_FILES.ram));
    ftruncateSync(ram, ramBytes);
    const devices = join(this.#beside, WARM_FILES.devices);
    closeSync(createFile(devices));
    if (variables) writeNew(join(this.#beside, WARM_FILES.variables), variables);
    const fds = [ram, openSync(devices, O_RDONLY | O_NOFOLLOW)] as const;
    this.files = {
      ram: fds[0],
      devices: fds[1],
      variables: undefined,
      [Symbol.dispose]: () => fds.forEach(closeSync),
    };
    this.saved = this.#save();
    this.saved.catch(() => {});
  }

  /** Boots the bare machine, and saves its state as soon as the runner is ready. */
  async #save(): Promise<void> {
    const bare = bareMachine(this.run.machine);
    const argv = buildQemuArgv(bare, this.run.capabilities);
    const machine = await startQemu({
      argv,
      jail: await this.run.confine(bare, this.#beside),
      directory: this.#beside,
      monitor: join(this.#beside, WORK.monitor),
      logPath: join(this.#beside, WORK.qemuLog),
      furtherFds: [this.files.ram],
      env: QUICK_MEMORY,
    });
    this.#machine = machine;
    try {
      const ready = Promise.withResolvers<void>();
      using _control = await Channel.connect(join(this.#beside, WORK.control), (line) => {
        if (line === "ready") ready.resolve();
      });
      await waitForStep(READY_MS, machine.ended, ready.promise);
      await this.#saveDevices();
      this.files.variables = readStateVariables(this.#beside);
    } finally {
      this.#ended = machine.end().catch(() => {});
    }
  }

  async #saveDevices(): Promise<void> {
    const monitor = join(this.#beside, WORK.qmp);
    const fd = openSync(join(this.#beside, WARM_FILES.devices), O_WRONLY | O_NOFOLLOW);
    try {
      await sendDevicesDescriptor(monitor, fd);
    } finally {
      closeSync(fd);
    }
    const qmp = await QmpClient.connect(monitor);
    try {
      await qmp.execute("stop");
      await saveDevices(qmp);
    } finally {
      qmp.close();
    }
  }

  /**
   * Gives the saved state its name; another process may have been first.
   * @param alias second name, by the UEFI variables that the boot has left
   * @throws if there is no space for it; there is no state then
   */
  async store(alias: string | undefined): Promise<void> {
    await this.saved;
    await this.#ended;
    const { path } = this;
    const directory = dirname(path);
    for (const name of listDirectory(this.#beside))
      if (!(Object.values(WARM_FILES) as string[]).includes(name)) removeQuietly(join(this.#beside, name));
    if (this.#ramInMemory) await saveRam(`/proc/self/fd/${this.files.ram}`, this.#beside);
    using complete = openWarmState(this.#beside, this.run.machine.memoryMiB * 2 ** 20);
    if (!complete) throw new Error("cannot open the saved state");
    publish(this.#beside, path);
    if (alias !== undefined && alias !== basename(path)) linkState(path, join(directory, alias));
    removeOthers(directory, this.run.rescue.name, basename(path));
  }

  /** Ends what still runs, and removes what is not stored. Of no use afterwards. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#machine) this.#ended = this.#machine.end().catch(() => {});
    await this.saved.catch(() => {});
    await this.#ended;
    this.files[Symbol.dispose]();
    removeQuietly(this.#beside);
    if (this.#lock !== undefined) closeSync(this.#lock);
  }
}

/** Is there space for a state? */
export const hasSpaceForState = (directory: string): boolean => freeBytes(directory) >= NEEDED_BYTES;

/** A file without a name. @returns undefined if there is no such filesystem, or no space */
function openInMemory(): number | undefined {
  try {
    if (!hasSpaceForState(MEMORY)) return undefined;
    return openSync(MEMORY, O_TMPFILE | O_DIRECTORY | O_RDWR | O_EXCL, 0o600);
  } catch {
    return undefined;
  }
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
    for (const name of Object.values(WARM_FILES)) linkSync(join(from, name), join(beside, name));
    renameSync(beside, to);
  } catch {
    removeQuietly(beside);
  }
}
