/**
 * The state of a paused machine in a directory: its RAM as a sparse file, and the state of its devices as qemu's migration
 * stream without that RAM (capability `x-ignore-shared`, qapi/migration.json). A machine that maps the file is where the
 * other one was, without reading it first.
 */
import { closeSync, constants, fchmodSync, fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import { hasErrno } from "../lib/errors.ts";
import { saysNoSpace } from "../lib/program-messages.ts";
import { openForReading } from "../lib/read-file.ts";
import { RAM_ID } from "./devices/ram.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { copySparse } from "../process/memory-file.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { QmpEvent } from "../qmp/events.ts";
import { sendNamedDescriptor } from "../qmp/send-descriptor.ts";
import { STATE_FILES } from "./state-files.ts";
import { waitForStep } from "./wait-for-step.ts";

/** For a machine that waits for its state (`loadDevices`). */
export const INCOMING_ARGS = ["-S", "-incoming", "defer"] as const;

const DEVICES_FD = "vm-devices";
const CAPABILITIES = {
  capabilities: [
    { capability: "events", state: true },
    { capability: "x-ignore-shared", state: true },
  ],
} as const;
/** Time limit for the state of the devices, which includes the pages of the graphics card's memory. */
const DEVICES_MS = 60_000;

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_WRONLY } = constants;

/**
 * The file that is a running machine's RAM, to be opened while it runs; undefined if its RAM is not a file that it shares.
 * @param pid of its qemu
 */
export async function findRam(qmp: QmpClient, pid: number): Promise<string | undefined> {
  const path = `/objects/${RAM_ID}`;
  const [file, shared] = await Promise.allSettled([
    qmp.execute("qom-get", { path, property: "mem-path" }),
    qmp.execute("qom-get", { path, property: "share" }),
  ]);
  if (file.status === "rejected" || shared.status === "rejected" || shared.value !== true) return undefined;
  return String(file.value).replace(/^\/proc\/self\//, `/proc/${pid}/`);
}

/**
 * Creates the file for the state of the devices, and sends it to qemu. Before a QMP connection to the same monitor: it has
 * one client at a time.
 * @param monitor path of the socket that `saveDevices` is connected to next
 */
export async function sendDevicesFile(monitor: string, directory: string): Promise<void> {
  const fd = openSync(join(directory, STATE_FILES.devices), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    await sendDevicesDescriptor(monitor, fd);
  } finally {
    closeSync(fd);
  }
}

/** The same with an open file. */
export const sendDevicesDescriptor = (monitor: string, fd: number): Promise<void> =>
  sendNamedDescriptor(monitor, DEVICES_FD, fd);

/**
 * Saves the state of a paused machine's devices to the file that was sent before. qemu releases its disks: the guest may be
 * resumed (`cont`), which takes them again, or the machine ended.
 * @throws Error with qemu's reason (ENOSPC without space), after a stop signal
 */
export async function saveDevices(qmp: QmpClient): Promise<void> {
  const migration = new Migration();
  qmp.onEvent(migration.onEvent);
  await qmp.execute("migrate-set-capabilities", CAPABILITIES);
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 });
  await qmp.execute("migrate", { uri: `fd:${DEVICES_FD}` });
  try {
    await migration.wait(qmp.closed);
    await untilSaved(qmp);
  } catch (error) {
    await cancelSaving(qmp).catch(() => {});
    throwIfInterrupted();
    const { "error-desc": reason } = await qmp.execute("query-migrate");
    throw reason === undefined ? error : migrationError(reason, error);
  }
}

const ENOSPC = -28;

/** qemu's reason, as a system error if it is that of one for which there is a status of its own. */
const migrationError = (reason: string, cause: unknown): Error =>
  Object.assign(
    new Error(reason, { cause }),
    saysNoSpace(reason) && { code: "ENOSPC", errno: ENOSPC, syscall: "write" },
  );

/** How long qemu may take to end a migration. */
const CANCEL_MS = 5000;
const SAVING_POLL_MS = 10;
const UNDER_WAY: ReadonlySet<string> = new Set(["setup", "active", "device", "cancelling"]);

/** Ends a migration that is under way: at its end, qemu would pause a guest that was resumed meanwhile. */
export async function cancelSaving(qmp: QmpClient): Promise<void> {
  await qmp.execute("migrate_cancel");
  for (const deadline = Date.now() + CANCEL_MS; Date.now() < deadline; await Bun.sleep(SAVING_POLL_MS)) {
    const { status } = await qmp.execute("query-migrate");
    if (status === undefined || !UNDER_WAY.has(status)) break;
  }
  await untilSaved(qmp);
}

/**
 * qemu reports the end of a migration before the machine's state follows (`migration_iteration_finish`), and refuses `cont`
 * until then. There is no event for that.
 */
async function untilSaved(qmp: QmpClient): Promise<void> {
  for (const deadline = Date.now() + CANCEL_MS; Date.now() < deadline; await Bun.sleep(SAVING_POLL_MS))
    if ((await qmp.execute("query-status")).status !== "finish-migrate") return;
}

/**
 * Copies the RAM of a paused machine, or a saved one, into the directory, without its holes. The caller syncs it.
 * @param ram of `findRam`, or another path
 * @returns the bytes written
 * @throws a system error, or after a stop signal
 */
export async function saveRam(ram: string, directory: string): Promise<number> {
  const from = openSync(ram, O_RDONLY);
  try {
    const to = openSync(join(directory, STATE_FILES.ram), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      return await copySparse(from, to);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

/** The open files of a state, which qemu inherits. */
export interface OpenState extends Disposable {
  ram: number;
  devices: number;
  /** The machine writes to the RAM file. */
  shared: boolean;
}

/**
 * Opens a state for a machine, which writes to its RAM file.
 * @param mapped another RAM file, for a private mapping
 */
export function openState(directory: string, mapped?: string): OpenState {
  const shared = mapped === undefined;
  const ram = shared
    ? openSync(join(directory, STATE_FILES.ram), O_RDWR | O_NOFOLLOW)
    : openMappedRam(mapped);
  try {
    const devices = openSync(join(directory, STATE_FILES.devices), O_RDONLY | O_NOFOLLOW);
    return { ram, devices, shared, [Symbol.dispose]: () => (closeSync(ram), closeSync(devices)) };
  } catch (error) {
    closeSync(ram);
    throw error;
  }
}

/**
 * Opens a RAM file that machines map privately: it must not change meanwhile. qemu before 8.2 opens the descriptor again, for
 * writing, though it never writes (`file_ram_open`): the file's owner must be allowed to.
 */
export function openMappedRam(path: string): number {
  const fd = openForReading(path);
  try {
    if ((fstatSync(fd).mode & 0o200) === 0) fchmodSync(fd, 0o600);
  } catch (error) {
    // Of another user, or on a read-only filesystem: for root, and newer versions of qemu, the mode does not matter.
    if (!hasErrno(error, "EPERM", "EROFS")) {
      closeSync(fd);
      throw error;
    }
  }
  return fd;
}

/**
 * Loads the state of the devices into a machine that was started with `INCOMING_ARGS` and the state's RAM. Its guest is paused
 * then.
 * @param fd the inherited descriptor
 * @param exited settles when qemu has exited: qemu before 9.1 exits if it cannot load the state
 * @param announced qemu, and the guest, announce the guest's addresses to the network
 * @throws if it cannot be loaded, or after a stop signal
 */
export async function loadDevices(
  qmp: QmpClient,
  fd: number,
  exited: Promise<unknown>,
  announced = true,
): Promise<void> {
  const migration = new Migration();
  qmp.onEvent(migration.onEvent);
  await Promise.all(
    qmp.executeBatch([
      ["migrate-set-capabilities", CAPABILITIES],
      ...(announced ? [] : [["migrate-set-parameters", { "announce-rounds": 0 }] as const]),
      ["migrate-incoming", { uri: `fd:${fd}` }],
    ]),
  );
  await migration.wait(exited);
}

/** Follows qemu's migration, by its events. */
class Migration {
  readonly #done = Promise.withResolvers<void>();

  constructor() {
    this.#done.promise.catch(() => {});
  }

  readonly onEvent = ({ event, data }: QmpEvent): void => {
    if (event !== "MIGRATION") return;
    if (data.status === "completed") this.#done.resolve();
    if (data.status === "failed") this.#done.reject(new Error("qemu reports that it failed"));
  };

  wait = (exited: Promise<unknown>): Promise<void> => waitForStep(DEVICES_MS, exited, this.#done.promise);
}
