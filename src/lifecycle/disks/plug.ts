import { log } from "../../lib/log.ts";
import { listDevices } from "../../live/attached.ts";
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

/** Notes that a change takes effect at the next start. */
export const noteNextRun = (what: string, reason: string): void =>
  log.info(`${what} from the next run: ${reason}`);
