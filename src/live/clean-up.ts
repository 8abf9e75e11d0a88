import { log } from "../lib/log.ts";
import { getDrive, listBlockNodes, removeNode, settingDrive } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import { findChardev } from "../qmp/chardev.ts";
import { QmpTimeout } from "../qmp/errors.ts";
import { WORK } from "../store/layout.ts";
import { cancelAllJobs } from "./block-jobs.ts";
import { ALLOCATED, NODE } from "./names.ts";
import { askAgent } from "./watch-agent.ts";

/**
 * Removes all jobs, nodes and temporary bitmaps of a live snapshot, finished or not, from a running qemu, and reattaches the guest's disks.
 * Idempotent.
 */
export async function removeFleecing(qmp: QmpClient): Promise<void> {
  await resumeMarked(qmp);
  await cancelAllJobs(qmp);
  const nodes = await listBlockNodes(qmp);
  const nodesOf = (prefix: string): string[] =>
    nodes.map(({ node }) => node).filter((node) => node.startsWith(prefix));
  const accesses = nodesOf(NODE.access);
  for (const { node, bitmaps } of nodes)
    if (bitmaps.some(({ name }) => name === ALLOCATED))
      await qmp.execute("block-dirty-bitmap-remove", { node, name: ALLOCATED });
  for (const node of [...nodesOf(NODE.target), ...nodesOf(NODE.scan), ...accesses])
    await removeNode(qmp, node);
  for (const prefix of [NODE.filter, NODE.heldFilter])
    for (const filter of nodesOf(prefix)) {
      const disk = filter.slice(prefix.length);
      if ((await getDrive(qmp, `${disk}-dev`)) === filter)
        await qmp.execute("qom-set", settingDrive(`${disk}-dev`, disk));
      await removeNode(qmp, filter);
    }
  for (const node of [...nodesOf(NODE.fleece), ...nodesOf(NODE.idle)]) await removeNode(qmp, node);
  // The command was killed between `stop` and `cont`.
  if (nodesOf(NODE.filter).length > 0 && accesses.length === 0) {
    const { status } = await qmp.execute("query-status");
    if (status === "paused") await qmp.execute("cont");
  }
}

const LOOK_MS = 20;
/** Time limit for qemu to give up saving its state. */
const CANCEL_MS = 30_000;

/** Resumes a guest that was paused for a snapshot with RAM, and removes the marker. @throws if it stays paused */
export async function resumeMarked(qmp: QmpClient): Promise<void> {
  if (!(await listBlockNodes(qmp)).some(({ node }) => node === NODE.paused)) return;
  const deadline = Date.now() + CANCEL_MS;
  for (;;) {
    const { running, status } = await qmp.execute("query-status");
    if (running) break;
    if (status !== "finish-migrate") await qmp.execute("cont");
    else if (Date.now() > deadline) throw new QmpTimeout("cannot resume the guest: qemu is saving its state");
    else {
      await qmp.execute("migrate_cancel");
      await Bun.sleep(LOOK_MS);
    }
  }
  await removeNode(qmp, NODE.paused);
}

/** Cleans up after a killed command in a running VM: jobs and nodes as above, and frozen filesystems. */
export async function cleanUpLive(qmp: QmpClient, workdir: string): Promise<void> {
  await removeFleecing(qmp);
  if (!(await findChardev(qmp, WORK.agent))?.guestOpen) return;
  try {
    await askAgent(workdir, async (agent) => {
      if ((await agent.execute("guest-fsfreeze-status")) === "thawed") return;
      await agent.execute("guest-fsfreeze-thaw");
      log.info("thawed guest filesystems that a killed command had frozen");
    });
  } catch {
    // No agent, or one without these commands: it cannot have frozen filesystems.
  }
}
