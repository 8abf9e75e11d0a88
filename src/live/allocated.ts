import { throwIfInterrupted } from "../process/signals.ts";
import { removeNode } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import { cancelJobs, findJobs, JOB_PREFIX } from "./block-jobs.ts";
import type { OpenDisk } from "./disk-source.ts";
import { ALLOCATED, NODE } from "./names.ts";

const LOOK_MS = 20;

/**
 * Records the allocated clusters of running disks in bitmaps (`ALLOCATED`), and all clusters that the guest writes from now
 * on. A point in time taken later has no others: its node cannot tell, as it reports holes as allocated zeroes
 * (block/snapshot-access.c), and a copy of 1 TiB of these takes minutes and 128 MiB.
 *
 * A backup job finds them (sync=top), to a target that discards data. It is cancelled once it copies, and the bitmap then
 * has what it has not copied (qapi/block-core.json, BitmapSyncMode, `always`); a bitmap of the target has the rest. A job
 * that is cancelled too early leaves unallocated clusters in the bitmap, too, which is only slow.
 */
export async function recordAllocated(qmp: QmpClient, disks: readonly OpenDisk[]): Promise<void> {
  const ids = disks.map((_disk, index) => `${JOB_PREFIX}scan-${index}`);
  for (const [index, { node, virtualBytes }] of disks.entries()) {
    const target = NODE.scan + node;
    // It never fails: while the job runs, a write of the guest waits for a copy of the old data to it.
    await qmp.execute("blockdev-add", {
      driver: "null-co",
      "node-name": target,
      size: virtualBytes,
      "read-zeroes": true,
    });
    for (const at of [node, target])
      await qmp.execute("block-dirty-bitmap-add", { node: at, name: ALLOCATED, disabled: false });
    await qmp.execute("blockdev-backup", {
      "job-id": ids[index]!,
      device: node,
      target,
      sync: "top",
      bitmap: ALLOCATED,
      "bitmap-mode": "always",
      compress: false,
      "auto-dismiss": false,
      // After the first requests it waits.
      speed: 1,
      "x-perf": { "max-workers": 1 },
    });
  }
  await untilCopying(qmp, ids);
  await cancelJobs(qmp, ids, () => Bun.sleep(LOOK_MS));
  for (const { node } of disks) {
    const bitmaps = [{ node: NODE.scan + node, name: ALLOCATED }];
    await qmp.execute("block-dirty-bitmap-merge", { node, target: ALLOCATED, bitmaps });
    await removeNode(qmp, NODE.scan + node);
  }
}

/**
 * Waits until all jobs have found their clusters: the total, which shrinks meanwhile, is constant. Progress alone may be by
 * writes of the guest. There is no event for it.
 */
async function untilCopying(qmp: QmpClient, ids: readonly string[]): Promise<void> {
  let before = "";
  for (;;) {
    throwIfInterrupted();
    const jobs = await findJobs(qmp, ids);
    const begun = jobs.every((job) => job.status === "concluded" || job["current-progress"] > 0);
    const totals = jobs.map((job) => job["total-progress"]).join();
    if (begun && (totals === before || jobs.every(({ status }) => status === "concluded"))) return;
    before = totals;
    await Bun.sleep(LOOK_MS);
  }
}
