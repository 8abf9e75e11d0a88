import { join } from "node:path";
import { log } from "../lib/log.ts";
import { GuestAgent } from "../qmp/agent.ts";
import { getDrive, listBlockNodes, removeNode, settingDrive } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import { findLine } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";
import { endAllJobs } from "./block-jobs.ts";
import { NODE } from "./names.ts";

/** How long an agent may take to say that it is there. */
const AGENT_MS = 3000;

/**
 * Takes everything out of a running qemu that a live snapshot has put there, finished or not: the guest's disks are
 * again what they were. May be repeated.
 */
export async function removeFleecing(qmp: QmpClient): Promise<void> {
  await endAllJobs(qmp);
  const nodes = await listBlockNodes(qmp);
  const those = (prefix: string): string[] =>
    nodes.map(({ node }) => node).filter((node) => node.startsWith(prefix));
  const accesses = those(NODE.access);
  for (const node of [...those(NODE.target), ...accesses]) await removeNode(qmp, node);
  for (const prefix of [NODE.filter, NODE.heldFilter])
    for (const filter of those(prefix)) {
      const disk = filter.slice(prefix.length);
      if ((await getDrive(qmp, `${disk}-dev`)) === filter)
        await qmp.execute("qom-set", settingDrive(`${disk}-dev`, disk));
      await removeNode(qmp, filter);
    }
  for (const node of those(NODE.fleece)) await removeNode(qmp, node);
  // Killed between `stop` and `cont`: nobody else has stopped it.
  if (those(NODE.filter).length > 0 && accesses.length === 0) {
    const { status } = await qmp.execute("query-status");
    if (status === "paused") await qmp.execute("cont");
  }
}

/** What a killed command may have left in a running VM: see above; and file systems at rest. */
export async function cleanUpLive(qmp: QmpClient, workdir: string): Promise<void> {
  await removeFleecing(qmp);
  if (!(await findLine(qmp, WORK.agent))?.guestOpen) return;
  try {
    using agent = await GuestAgent.connect(join(workdir, WORK.agent), AGENT_MS);
    if ((await agent.execute("guest-fsfreeze-status")) === "thawed") return;
    await agent.execute("guest-fsfreeze-thaw");
    log.info("a killed command had left the guest's file systems frozen: they go on");
  } catch {
    // No agent, or one that does not know these: then nothing can have been frozen by it.
  }
}
