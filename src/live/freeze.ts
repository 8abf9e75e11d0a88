import { join } from "node:path";
import { reasonOf } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { AGENT_MS, GuestAgent } from "../qmp/agent.ts";
import type { QmpClient } from "../qmp/client.ts";
import { findChardev } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";
import { watchAgentPort } from "./watch-agent.ts";

/** Guest filesystems are thawed after this time at the latest. */
const FROZEN_MS = 10_000;

/**
 * Calls `work` with the guest's filesystems frozen, if its agent can freeze them: writes in the guest block meanwhile.
 * They are thawed in any case.
 * @returns whether they were frozen all the time
 */
export async function whileFrozen(
  qmp: QmpClient,
  workdir: string,
  work: () => Promise<void>,
): Promise<boolean> {
  using port = watchAgentPort(workdir);
  const agent = await freeze(qmp, workdir, port.closed);
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
    // Thawing twice is harmless. If it fails here, the next command tries again.
    await thaw().catch((error: unknown) =>
      log.warn(`guest filesystems may still be frozen: guest-fsfreeze-thaw failed: ${reasonOf(error)}`),
    );
    agent[Symbol.dispose]();
  }
  return !late;
}

/** @returns undefined if no agent is connected, or it cannot freeze */
async function freeze(qmp: QmpClient, workdir: string, over: AbortSignal): Promise<GuestAgent | undefined> {
  if (!(await findChardev(qmp, WORK.agent))?.guestOpen) return undefined;
  let agent: GuestAgent | undefined;
  try {
    agent = await GuestAgent.connect(join(workdir, WORK.agent), AGENT_MS, over);
    const frozen = (await agent.execute("guest-fsfreeze-freeze", undefined, FROZEN_MS)) as number;
    if (frozen > 0) return agent;
    log.info("the guest agent found no filesystems to freeze");
  } catch (error) {
    log.info(`the guest agent cannot freeze the filesystems: ${reasonOf(error)}`);
    await agent?.execute("guest-fsfreeze-thaw").catch(() => {});
  }
  agent?.[Symbol.dispose]();
  return undefined;
}
