import type { QmpClient } from "../qmp/client.ts";
import { findChardev } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";

/** Interval of requests: a guest that is booting ignores them. */
export const REQUEST_INTERVAL_MS = 5000;

/** `guest-shutdown` has no reply on success (qga/qapi-schema.json). */
const REFUSAL_MS = 500;

/**
 * Requests the guest to power off: by its agent if one is connected, else by the ACPI power button. Repeated requests use
 * both: an agent may accept a request and do nothing. A paused guest is resumed first.
 * @param again not the first request
 * @returns whether the guest's kernel has panicked: nothing was requested
 */
export async function requestPowerOff(
  qmp: QmpClient,
  workdir: string,
  again: boolean,
): Promise<"panicked" | undefined> {
  const { running, status } = await qmp.execute("query-status");
  // With the user's own `-action panic=pause`, or a qemu that was started by hand.
  if (status === "guest-panicked") return "panicked";
  if (!running) await qmp.execute("cont");
  if (again) await qmp.execute("system_powerdown");
  if (!(await shutDownByAgent(qmp, workdir)) && !again) await qmp.execute("system_powerdown");
  return undefined;
}

async function shutDownByAgent(qmp: QmpClient, workdir: string): Promise<boolean> {
  const line = await findChardev(qmp, WORK.agent);
  if (!line?.guestOpen || line.connected) return false;
  const { AgentError } = await import("../qmp/agent.ts");
  const { askAgent } = await import("../live/watch-agent.ts");
  try {
    return await askAgent(workdir, async (agent) => {
      const refused = agent.execute("guest-shutdown").then(
        () => false,
        (error: unknown) => error instanceof AgentError,
      );
      return !(await Promise.race([refused, Bun.sleep(REFUSAL_MS)]));
    });
  } catch {
    return false;
  }
}
