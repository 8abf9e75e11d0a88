import { join } from "node:path";
import type { QmpClient } from "../qmp/client.ts";
import { findLine } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";

/** A guest that is still running is asked again after this long: while it boots, it loses what it is asked. */
export const ASK_AGAIN_MS = 5000;

const AGENT_MS = 3000;
/** The agent answers `guest-shutdown` only when it refuses (qga/qapi-schema.json). */
const REFUSAL_MS = 500;

/**
 * Asks the guest to power off: through its agent where one listens, else by the ACPI power button. Asked again, both:
 * an agent may accept the request and do nothing. A paused guest is resumed first.
 * @param again the guest was asked before
 */
export async function requestPowerOff(qmp: QmpClient, workdir: string, again: boolean): Promise<void> {
  const { running } = await qmp.execute("query-status");
  if (!running) await qmp.execute("cont");
  if (again) await qmp.execute("system_powerdown");
  if (!(await shutDownByAgent(qmp, join(workdir, WORK.agent))) && !again)
    await qmp.execute("system_powerdown");
}

async function shutDownByAgent(qmp: QmpClient, socket: string): Promise<boolean> {
  const line = await findLine(qmp, WORK.agent);
  if (!line?.guestOpen || line.taken) return false;
  const { AgentError, GuestAgent } = await import("../qmp/agent.ts");
  try {
    using agent = await GuestAgent.connect(socket, AGENT_MS);
    const refused = agent.execute("guest-shutdown").then(
      () => false,
      (error: unknown) => error instanceof AgentError,
    );
    return !(await Promise.race([refused, Bun.sleep(REFUSAL_MS)]));
  } catch {
    return false;
  }
}
