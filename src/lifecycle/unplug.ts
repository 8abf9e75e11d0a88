import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { saysUnplugPending } from "../lib/program-messages.ts";
import { listDevices } from "../live/attached.ts";
import { interruption, throwIfInterrupted } from "../process/signals.ts";
import type { QmpClient } from "../qmp/client.ts";
import { QmpError } from "../qmp/errors.ts";

/** How long a guest may take to release a device. */
const UNPLUG_MS = 30_000;

/** Why a device is still there. */
type Kept = { by: "qemu"; reason: string } | { by: "guest" } | { by: "time" };

/**
 * Unplugs a device, and waits until the guest has released it. A request of an earlier command counts as this one's.
 * @param change for the error message: `remove disk 1`
 * @param hint how to do it otherwise
 * @throws 75 for a paused guest, and if qemu or the guest refuses; 124 if the guest does not release it in time
 */
export async function unplugDevice(
  qmp: QmpClient,
  id: string,
  { change, hint }: { change: string; hint: string },
): Promise<void> {
  const { running } = await qmp.execute("query-status");
  if (!running)
    throw new VmError("busy", `cannot ${change}: the guest is paused, and must release it`, {
      hint: `resume it: ${commandLine("resume")}`,
    });
  const kept = await waitForRelease(qmp, id);
  if (kept) throw refusal(change, kept, hint);
}

/** Unplugs a device. @returns why it is still there; undefined if it is gone */
export async function waitForRelease(qmp: QmpClient, id: string): Promise<Kept | undefined> {
  const { promise, resolve } = Promise.withResolvers<"gone" | "refused" | "late">();
  qmp.onEvent(({ event, data }) => {
    if (event === "DEVICE_DELETED" && data.device === id) resolve("gone");
    if (event === "DEVICE_UNPLUG_GUEST_ERROR" && data.device === id) resolve("refused");
  });
  const stop = (): void => resolve("late");
  const timer = setTimeout(stop, UNPLUG_MS);
  interruption.addEventListener("abort", stop);
  try {
    await qmp.execute("device_del", { id }).catch((error: unknown) => {
      if (!(error instanceof QmpError) || !saysUnplugPending(error.reply.desc)) throw error;
    });
    const end = await Promise.race([promise, qmp.closed.then(() => "late" as const)]);
    throwIfInterrupted();
    if (end === "gone" || !(await listDevices(qmp)).has(id)) return undefined;
    return end === "refused" ? { by: "guest" } : { by: "time" };
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    // The guest may have released it just before.
    return (await listDevices(qmp)).has(id) ? { by: "qemu", reason: error.reply.desc } : undefined;
  } finally {
    clearTimeout(timer);
    interruption.removeEventListener("abort", stop);
  }
}

function refusal(change: string, kept: Kept, hint: string): VmError {
  if (kept.by === "qemu") return new VmError("busy", `cannot ${change}: ${kept.reason}`, { hint });
  if (kept.by === "guest")
    return new VmError("busy", `cannot ${change}: the guest refused to release it`, { hint });
  return new VmError(
    "timeout",
    `cannot ${change}: the guest did not release it within ${UNPLUG_MS / 1000} seconds; it still has it`,
    {
      hint: `run the command again when the guest's system is up, whose kernel must support hot plug, and does not use it\n${hint}`,
    },
  );
}
