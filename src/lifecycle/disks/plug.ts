import { log } from "../../lib/log.ts";
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { listDevices } from "../../live/attached.ts";
import { interruption, throwIfInterrupted } from "../../process/signals.ts";
import { deviceOf, type PluggedDisk } from "../../qemu/devices/disk.ts";
import { listBlockNodes, removeNode } from "../../qmp/block.ts";
import type { QmpClient } from "../../qmp/client.ts";
import type { ArgsOf } from "../../qmp/commands.ts";
import { QmpError } from "../../qmp/errors.ts";

/**
 * Plugs a disk into the running machine, with its controller if the machine does not have it yet.
 * @throws QmpError, with nothing left in qemu, if qemu cannot
 */
export async function plugDisk(qmp: QmpClient, { node, controller, device }: PluggedDisk): Promise<void> {
  const devices = await listDevices(qmp);
  await removeUnplugged(qmp, devices);
  await qmp.execute("blockdev-add", node as ArgsOf<"blockdev-add">);
  const added = controller && !devices.has(controller.id) ? controller : undefined;
  try {
    if (added) await qmp.execute("device_add", added);
    await qmp.execute("device_add", device);
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    // The guest may take its time to release the controller, which does no harm.
    if (added) await qmp.execute("device_del", { id: added.id }).catch(() => {});
    await removeNode(qmp, node["node-name"]);
    throw error;
  }
}

/** Closes disks that the guest has released, or that a killed command was plugging in. */
export async function removeUnplugged(qmp: QmpClient, devices: ReadonlySet<string>): Promise<void> {
  for (const { node } of await listBlockNodes(qmp))
    if (/^disk\d+$/.test(node) && !devices.has(deviceOf(node))) await removeNode(qmp, node);
}

/** How long a guest may take to release a device. */
const UNPLUG_MS = 30_000;

/** Why a device is still there. */
export type Kept = { by: "qemu"; reason: string } | { by: "guest" } | { by: "time"; seconds: number };

/**
 * Unplugs a device, and waits until the guest has released it.
 * @returns undefined if it is gone
 */
export async function unplug(qmp: QmpClient, id: string, limitMs = UNPLUG_MS): Promise<Kept | undefined> {
  const { promise, resolve } = Promise.withResolvers<"gone" | "refused" | "late">();
  qmp.onEvent(({ event, data }) => {
    if (event === "DEVICE_DELETED" && data.device === id) resolve("gone");
    if (event === "DEVICE_UNPLUG_GUEST_ERROR" && data.device === id) resolve("refused");
  });
  const stop = (): void => resolve("late");
  const timer = setTimeout(stop, limitMs);
  interruption.addEventListener("abort", stop);
  try {
    await qmp.execute("device_del", { id });
    const end = await Promise.race([promise, qmp.closed.then(() => "late" as const)]);
    throwIfInterrupted();
    if (end === "gone" || !(await listDevices(qmp)).has(id)) return undefined;
    return end === "refused" ? { by: "guest" } : { by: "time", seconds: limitMs / 1000 };
  } catch (error) {
    if (error instanceof QmpError) return { by: "qemu", reason: error.reply.desc };
    throw error;
  } finally {
    clearTimeout(timer);
    interruption.removeEventListener("abort", stop);
  }
}

/** @throws 75 for a paused guest: it cannot release a device */
export async function requireResumed(qmp: QmpClient, command: string): Promise<void> {
  const { running } = await qmp.execute("query-status");
  if (!running)
    throw new VmError("busy", `cannot ${command}: the guest is paused`, {
      hint: `resume it: ${commandLine("resume")}`,
    });
}

/** Notes that a change takes effect at the next start. */
export const noteNextRun = (what: string, reason: string): void =>
  log.info(`${what} from the next run: ${reason}`);
