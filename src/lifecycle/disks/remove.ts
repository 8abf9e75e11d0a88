import { commandLine } from "../../lib/command-line.ts";
import { usageError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { listAttached, listDevices } from "../../live/attached.ts";
import { takeBack } from "../../live/lend.ts";
import { findAttached } from "../../live/same-file.ts";
import { controllerOf, deviceOf } from "../../qemu/devices/disk.ts";
import { removeNode } from "../../qmp/block.ts";
import type { QmpClient } from "../../qmp/client.ts";
import { beginDiskChange, endDiskChange } from "../../store/disk-change.ts";
import { remove } from "../../store/remove.ts";
import type { Context } from "../../vm/context.ts";
import type { StoredDisk } from "../../vm/disks.ts";
import type { Vm } from "../../vm/find.ts";
import type { SettingChanges } from "../../vm/store-settings.ts";
import { unplugDevice, waitForRelease } from "../unplug.ts";
import { recordLimits, replaceLimit } from "./limit.ts";
import { findStored, listStoredDisks, withMachine, type Changing } from "./open.ts";
import { recordDisks, storeDisks } from "./store.ts";

const COMMAND = "remove the disk";

/**
 * Removes a disk from the VM; of a running machine after the guest has released it.
 * @param deletes delete the file of one of the VM's own disks
 * @throws 64 for an own disk without `deletes`, 66 for an unknown one, 75 if the guest cannot release it, 124 if it does not
 */
export async function removeDisk(context: Context, name: string, deletes: boolean): Promise<void> {
  await withMachine(context, COMMAND, async (changing) => {
    const { vm, work, qmp } = changing;
    const stored = await listStoredDisks(context, vm, work);
    const disk = findStored(changing, stored, name, COMMAND);
    const { path: image } = disk.request;
    if (disk.own && !deletes)
      throw usageError(
        `cannot ${COMMAND} without --delete: ${image} is the only copy of its data, unless a snapshot has it`,
        `delete the file, too: ${commandLine("disk", "remove", name, "--delete")}\nback it up before: ${commandLine("backup")}`,
      );
    if (!disk.own && deletes)
      throw usageError(
        `cannot delete ${image}: it is no file of this VM`,
        `remove it from the VM, and keep the file: ${commandLine("disk", "remove", name)}`,
      );
    const rest = stored.filter((item) => item !== disk);
    const words = ["disk", "remove", ...(deletes ? ["--delete"] : []), name];
    const hint = `remove it while the VM is off: ${commandLine("stop")} && ${commandLine(...words)}`;
    if (qmp) await detach(changing, qmp, disk, stored, hint);
    if (disk.own) beginDiskChange(work.dir, image);
    try {
      const limits = replaceLimit(vm.settings.DISK_LIMITS, disk.number, undefined);
      storeDisks(vm, COMMAND, rest, { ...withoutFormat(vm, disk), ...limits });
      if (qmp) recordLimits(work, limits);
    } catch (error) {
      if (disk.own) endDiskChange(work.dir, image);
      throw error;
    }
    if (disk.own) {
      remove(disk.path!);
      endDiskChange(work.dir, image);
      recordDisks(work, { removed: image });
    }
    log.success(`removed disk ${disk.number}${disk.own ? `, and deleted ${image}` : `; kept ${image}`}`);
  });
}

/** The format detected at first use is that of this file: another file may come to its path. */
function withoutFormat({ settings }: Vm, { path }: StoredDisk): SettingChanges {
  const kept = settings.IMAGE_FORMATS.filter((item) => item.path !== path);
  if (kept.length === settings.IMAGE_FORMATS.length) return {};
  const IMAGE_FORMATS = kept.map((item) => `${item.format}=${item.path}`);
  return { IMAGE_FORMATS: kept.length > 0 ? IMAGE_FORMATS : undefined };
}

/** Takes a disk out of the running machine, if it has it. */
async function detach(
  { vm, work }: Changing,
  qmp: QmpClient,
  disk: StoredDisk,
  stored: readonly StoredDisk[],
  hint: string,
): Promise<void> {
  const attached = disk.path === undefined ? undefined : findAttached(await listAttached(qmp), disk.path);
  if (!attached) return;
  if (attached.plugged) {
    if (disk === stored[0])
      throw new VmError("busy", `cannot ${COMMAND}: it is the first one, and the VM is running`, { hint });
    const change = `${COMMAND} ${attached.node.slice("disk".length)}`;
    await unplugDevice(qmp, deviceOf(attached.node), { change, hint });
  }
  await removeNode(qmp, attached.node);
  await takeBack(qmp, work.dir, attached.path);
  const others = stored.filter((item) => item !== disk);
  if (vm.settings.LAYOUT !== 0) await detachController(qmp, disk, others);
}

/** Takes out a controller without disks: its place is that of a disk. */
async function detachController(
  qmp: QmpClient,
  { request, number }: StoredDisk,
  others: readonly StoredDisk[],
): Promise<void> {
  const id = controllerOf({ bus: request.bus, number });
  const isShared = others.some(
    (other) => controllerOf({ bus: other.request.bus, number: other.number }) === id,
  );
  if (id !== undefined && !isShared && (await listDevices(qmp)).has(id)) await waitForRelease(qmp, id);
}
