/**
 * Limits of a running machine's disks. They belong to the device, not to a block node: a filter that a backup inserts,
 * and another image, leave them as they are, and what copy jobs read is not limited (qapi/block-core.json,
 * block_set_io_throttle).
 */
import type { DiskLimit } from "../config/machine-values.ts";
import { deviceOf, nodeOf } from "../qemu/devices/disk.ts";
import type { QmpClient } from "../qmp/client.ts";

/**
 * Sets the limits of disks.
 * @returns the numbers of those that the machine does not have
 * @throws QmpError
 */
export async function throttleDisks(qmp: QmpClient, limits: readonly DiskLimit[]): Promise<number[]> {
  const drives = await qmp.execute("query-block");
  const missing: number[] = [];
  for (const { number, iops = 0, bytesPerSecond = 0 } of limits) {
    const device = deviceOf(nodeOf({ number }));
    // virtio-blk-pci has the disk in a device of its own below it.
    const drive = drives.find(
      ({ qdev }) => qdev === device || qdev?.startsWith(`/machine/peripheral/${device}/`),
    );
    if (drive?.qdev === undefined) missing.push(number);
    else
      await qmp.execute("block_set_io_throttle", {
        id: drive.qdev,
        bps: bytesPerSecond,
        bps_rd: 0,
        bps_wr: 0,
        iops,
        iops_rd: 0,
        iops_wr: 0,
      });
  }
  return missing;
}
