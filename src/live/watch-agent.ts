import { join } from "node:path";
import { watchDirectory } from "../process/watch-directory.ts";
import { AGENT_MS, AgentExited, GuestAgent } from "../qmp/agent.ts";
import { changesAgentPort } from "../qmp/events.ts";
import { EventTail } from "../store/events.ts";
import { WORK } from "../store/layout.ts";

/** Besides inotify. */
const POLL_MS = 500;

/** The guest agent's port from now on. */
export interface AgentPort extends Disposable {
  /** Aborted when the guest closes it, with AgentExited; within a second, to which qemu limits this event. */
  closed: AbortSignal;
}

/** Watches qemu's log of events for the end of the guest agent, whose replies would be waited for in vain. */
export function watchAgentPort(workdir: string): AgentPort {
  const stop = new AbortController();
  const events = new EventTail(workdir);
  const look = (): void => {
    if (!stop.signal.aborted && events.read().some((event) => changesAgentPort(event, false)))
      stop.abort(new AgentExited());
  };
  const watch = watchDirectory(workdir, { everyMs: POLL_MS }, (name) => {
    if (name === undefined || name === WORK.eventsOut) look();
  });
  return {
    closed: stop.signal,
    [Symbol.dispose]: () => {
      watch[Symbol.dispose]();
      events[Symbol.dispose]();
    },
  };
}

/** Calls `ask` with the guest agent, until the guest closes its port. @throws AgentExited then */
export async function askAgent<T>(workdir: string, ask: (agent: GuestAgent) => Promise<T>): Promise<T> {
  using port = watchAgentPort(workdir);
  using agent = await GuestAgent.connect(join(workdir, WORK.agent), AGENT_MS, port.closed);
  return await ask(agent);
}
