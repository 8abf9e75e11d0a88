import { connect } from "node:net";
import { beginStep } from "../lib/activity.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { either } from "../lib/text.ts";
import { findChardev } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";
import { WAIT_EVENTS, type WaitEvent } from "./choices.ts";
import type { Context } from "../vm/context.ts";
import { findGuestErrors } from "../vm/guest-errors.ts";
import { requireRunning, withLive } from "../vm/running.ts";
import { requireSsh } from "../vm/ssh-forward.ts";
import { waitForRun } from "../vm/watch.ts";

/** Condition that `run --detach --wait` waits for. */
export type Wait = { for: WaitEvent } | { for: "time"; seconds: number };

const LIMIT_SECONDS = 300;
/** An SSH server may take long to greet after its start. */
const GREETING_MS = 5000;

/** @throws 64 for an invalid value, or without --detach */
export function parseWait(text: string, detached: boolean): Wait {
  if (!detached)
    throw new VmError("usage", "--wait needs --detach: without it run waits until the guest is off", {
      hint: `run in the background: ${commandLine("run", "--detach", `--wait=${text}`)}`,
    });
  const event = WAIT_EVENTS.find((one) => one === text);
  if (event) return { for: event };
  if (/^\d{1,6}$/.test(text)) return { for: "time", seconds: Number(text) };
  throw new VmError("usage", `--wait: '${text}' is not allowed`, {
    hint: `allowed: ${either([...WAIT_EVENTS, "SECONDS"])}`,
  });
}

/**
 * Waits until a VM in the background is ready.
 * @param ownLimit `run --timeout`, instead of that of the settings
 * @throws 124 on timeout, 74 if the guest powers off first
 */
export async function waitUntilReady(
  context: Context,
  wait: Wait,
  ownLimit: number | undefined,
): Promise<void> {
  const { vm, work } = await requireRunning(context, "wait");
  const limitSeconds =
    wait.for === "time" ? wait.seconds : (ownLimit ?? vm.settings.TIMEOUT ?? LIMIT_SECONDS);
  const ssh = wait.for === "ssh" ? requireSsh(work.mark.run?.forwards ?? []) : undefined;
  let queriedAt = -1;
  // Queried at first, and after each event.
  const agentConnected = async (eventCount: number): Promise<boolean> => {
    if (eventCount === queriedAt) return false;
    queriedAt = eventCount;
    return hasAgent(context);
  };
  const awaited = wait.for === "time" ? "" : `for the guest's ${wait.for}, `;
  using _step = beginStep(() => `waiting ${awaited}at most ${limitSeconds} s`);
  const how = await waitForRun(work, limitSeconds * 1000, async (events) => {
    if (ssh) return (await hasSshGreeting(ssh)) || undefined;
    if (wait.for === "agent") return (await agentConnected(events.length)) || undefined;
    return undefined;
  });
  if (how === "ended")
    throw new VmError("io", "the guest is off already", {
      hint: `show the exit reason: ${commandLine("status")}\nshow its console: ${commandLine("console", "--log")}`,
    });
  for (const { text } of how === "late" ? findGuestErrors(work.dir) : []) log.warn(text);
  if (how === "late" && wait.for !== "time")
    throw new VmError("timeout", `the guest's ${wait.for} does not answer within ${limitSeconds} seconds`, {
      hint: `show the console of the VM, which still runs: ${commandLine("console", "--log")}`,
    });
  if (wait.for !== "time") log.success(`the guest's ${wait.for} answers`);
}

/** Does an SSH server greet? That qemu accepts the connection proves nothing. */
function hasSshGreeting(place: { host: string; port: number }): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(place);
  const finish = (result: boolean): void => {
    socket.destroy();
    resolve(result);
  };
  socket.setTimeout(GREETING_MS, () => finish(false));
  socket.on("data", (bytes) => finish(bytes.toString("latin1").startsWith("SSH-")));
  socket.on("error", () => finish(false));
  socket.on("close", () => finish(false));
  return promise;
}

/** Has qemu-ga opened its port? */
const hasAgent = (context: Context): Promise<boolean> =>
  withLive(context, "wait", async ({ qmp }) => (await findChardev(qmp, WORK.agent))?.guestOpen === true);
