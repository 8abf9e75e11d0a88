import { join } from "node:path";
import { reasonOf } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { GuestAgent } from "../qmp/agent.ts";
import type { QmpClient } from "../qmp/client.ts";
import { findLine } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";

/** How long an agent may take to say that it is there. */
const AGENT_MS = 3000;

/** No guest's file systems stand still for longer than this. */
const FROZEN_MS = 10_000;

/**
 * Does something while the guest's file systems are at rest, if its agent can bring them there: all programs in the
 * guest wait meanwhile. They go on in any case.
 * @returns whether they were at rest when it was done
 */
export async function whileFrozen(
  qmp: QmpClient,
  workdir: string,
  work: () => Promise<void>,
): Promise<boolean> {
  const agent = await freeze(qmp, workdir);
  if (!agent) {
    await work();
    return false;
  }
  let late = false;
  const thaw = (): Promise<unknown> => agent.execute("guest-fsfreeze-thaw");
  const watchdog = setTimeout(() => {
    late = true;
    void thaw().catch(() => {});
  }, FROZEN_MS);
  try {
    await work();
  } finally {
    clearTimeout(watchdog);
    // Once more does no harm. Linux guests freeze nothing for good: what fails here, the next command tries again.
    await thaw().catch((error: unknown) =>
      log.warn(`the guest's file systems may still stand still: ${reasonOf(error)}`),
    );
    agent[Symbol.dispose]();
  }
  return !late;
}

/** Undefined where no agent is there that can. */
async function freeze(qmp: QmpClient, workdir: string): Promise<GuestAgent | undefined> {
  if (!(await findLine(qmp, WORK.agent))?.guestOpen) return undefined;
  let agent: GuestAgent | undefined;
  try {
    agent = await GuestAgent.connect(join(workdir, WORK.agent), AGENT_MS);
    const frozen = (await agent.execute("guest-fsfreeze-freeze", undefined, FROZEN_MS)) as number;
    if (frozen > 0) return agent;
    log.info("the guest agent found no file systems to bring to rest");
  } catch (error) {
    log.info(`the guest agent cannot bring the file systems to rest: ${reasonOf(error)}`);
    await agent?.execute("guest-fsfreeze-thaw").catch(() => {});
  }
  agent?.[Symbol.dispose]();
  return undefined;
}
