import { connect } from "node:net";
import { beginStep } from "../lib/activity.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { findLine } from "../qmp/chardev.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { requireRunning, withLive } from "../vm/running.ts";
import { requireSsh } from "../vm/ssh-forward.ts";
import { waitForRun } from "../vm/watch.ts";

/** What `run --detach --wait` waits for. */
export type Wait = { for: "ssh" | "agent" } | { for: "time"; seconds: number };

const LIMIT_SECONDS = 300;
/** An SSH server that has just been started may take long to greet. */
const GREETING_MS = 5000;

/** @throws 64 for anything else, or where nothing is detached */
export function parseWait(text: string, detached: boolean): Wait {
  if (!detached)
    throw new VmError("usage", "--wait needs --detach: without it run waits until the guest is off", {
      hint: `in the background: ${commandLine("run", "--detach", `--wait=${text}`)}`,
    });
  if (text === "ssh" || text === "agent") return { for: text };
  if (/^\d{1,6}$/.test(text)) return { for: "time", seconds: Number(text) };
  throw new VmError("usage", `--wait: '${text}' is not understood`, { hint: "allowed: ssh, agent, SECONDS" });
}

/**
 * Waits until a VM in the background can be used.
 * @throws 124 when it takes too long, 74 when the guest is off before
 */
export async function waitUntilReady(context: Context, wait: Wait): Promise<void> {
  const { vm, work } = await requireRunning(context, "wait");
  const limitSeconds = wait.for === "time" ? wait.seconds : (vm.settings.TIMEOUT ?? LIMIT_SECONDS);
  const ssh = wait.for === "ssh" ? requireSsh(work.mark.run?.forwards ?? []) : undefined;
  let askedAt = -1;
  // Asked at first, and whenever something has happened.
  const agentListens = async (happened: number): Promise<boolean> => {
    if (happened === askedAt) return false;
    askedAt = happened;
    return hasAgent(context);
  };
  const awaited = wait.for === "time" ? "" : `for the guest's ${wait.for}, `;
  using _step = beginStep(() => `waiting ${awaited}at most ${limitSeconds} s`);
  const how = await waitForRun(work, limitSeconds * 1000, async (events) => {
    if (ssh) return (await greets(ssh)) || undefined;
    if (wait.for === "agent") return (await agentListens(events.length)) || undefined;
    return undefined;
  });
  if (how === "ended")
    throw new VmError("io", "the guest is off already", {
      hint: `how it ended: ${commandLine("status")}\nwhat it said: ${commandLine("console", "--log")}`,
    });
  if (how === "late" && wait.for !== "time")
    throw new VmError("timeout", `the guest's ${wait.for} does not answer within ${limitSeconds} seconds`, {
      hint: `the VM still runs; what it says: ${commandLine("console", "--log")}`,
    });
  if (wait.for !== "time") log.success(`the guest's ${wait.for} answers`);
}

/** Does an SSH server greet behind the forward? qemu itself accepts at once. */
function greets(place: { host: string; port: number }): Promise<boolean> {
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
  withLive(context, "wait", async ({ qmp }) => (await findLine(qmp, WORK.agent))?.guestOpen === true);
