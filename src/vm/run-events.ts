import { changesAgentPort, readShutdown } from "../qmp/events.ts";
import { readEvents, type PastEvent } from "../store/events.ts";
import type { VmEvent, VmEventName } from "../store/history.ts";
import { parseGuestError } from "./guest-errors.ts";

/** What happened in a run, from the log that qemu writes. Without its start and end. */
export const listRunEvents = (hostdir: string, workdir: string): VmEvent[] =>
  describeRunEvents(hostdir, workdir, readEvents(workdir));

/** Pure. */
export function describeRunEvents(hostdir: string, workdir: string, events: readonly PastEvent[]): VmEvent[] {
  const found: VmEvent[] = [];
  const add = ({ at }: PastEvent, event: VmEventName, how?: string): void => {
    found.push({ at: at.toISOString(), vm: hostdir, event, ...(how !== undefined && { how }) });
  };
  let isReady = false;
  let isOver = false;
  let reason: string | undefined;
  for (const event of events) {
    const error = parseGuestError(event, workdir);
    if (error?.kind === "panic") add(event, "panicked");
    if (error?.kind === "disk" && found.at(-1)?.how !== error.text) add(event, "failed", error.text);
    if (error?.kind === "no-space" || error?.kind === "paused") reason = error.text;
    if (readShutdown(event)) isOver = true;
    if (changesAgentPort(event, true) && !isReady) {
      isReady = true;
      add(event, "ready");
    }
    if (event.event === "RESET") {
      isReady = false;
      add(event, "rebooted", event.data.guest === true ? "by the guest" : "by a command");
    }
    // qemu stops the processors at the end of a run as well.
    if (event.event === "STOP" && !isOver) {
      add(event, "paused", reason);
      reason = undefined;
    }
    if (event.event === "RESUME") add(event, "resumed");
  }
  return found;
}
