import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { AgentError, GuestAgent } from "../qmp/agent.ts";
import { findLine, powerDown } from "../qmp/commands.ts";
import type { QmpClient } from "../qmp/client.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import { endMachine, findRunning } from "./in-use.ts";
import { withLive, type Live } from "./live.ts";
import { findHostdir, openVm, withLockedVm, withVm } from "./open.ts";
import { requireVm } from "./no-vm.ts";
import { requireOwn } from "./own.ts";
import { catchUp } from "./run-end.ts";
import { runVm } from "./run.ts";
import { waitForEnd } from "./watch-run.ts";

export interface StopRequest {
  timeoutSeconds: number;
  /** End qemu at once, as a power cut would. */
  force: boolean;
}

/** @throws 64 when the time is none */
export function parseStop(timeout: string | undefined, force: boolean | undefined): StopRequest {
  if (timeout !== undefined && !/^\d{1,6}$/.test(timeout))
    throw new VmError("usage", `--timeout: '${timeout}' is not understood`, {
      hint: "allowed: a whole number of seconds",
    });
  return { timeoutSeconds: Number(timeout ?? STOP_SECONDS), force: force === true };
}

const STOP_SECONDS = 60;

/**
 * Has the guest power itself off, and ends qemu when it does not.
 * @throws 124 when qemu had to be ended
 */
export async function stopVm(context: Context, { timeoutSeconds, force }: StopRequest): Promise<void> {
  requireOwn(context, findHostdir(context), "stop");
  requireVm(findHostdir(context));
  const vm = await openVm(context);
  const { work } = vm;
  if (work.state !== "present" || (await findRunning(work)) === undefined) {
    // Writes down how it ended, if nobody has.
    await withVm(context, "stop", async () => {});
    return log.info(`the VM in ${vm.hostdir} is not running`);
  }
  if (!force) await withLive(context, "stop", askToPowerOff);
  const off = !force && (await waitForEnd(work, timeoutSeconds * 1000));
  if (!off) await endMachine(work);
  await withLockedVm(context, "stop", (now) => catchUp(context, now.hostdir, now.work));
  if (!off && !force)
    throw new VmError("timeout", `the guest did not power itself off within ${timeoutSeconds} seconds`, {
      hint: "it was ended; its disks are as after a power cut",
    });
  log.success(off ? "the guest has powered itself off" : "the guest was ended, as by a power cut");
}

/** By its agent where one listens, else by the power button; a guest that stands still would hear neither. */
async function askToPowerOff({ qmp, work }: Live): Promise<void> {
  const status = (await qmp.execute("query-status")) as { running: boolean };
  if (!status.running) await qmp.execute("cont");
  if (!(await shutDownByAgent(qmp, join(work.dir, WORK.agent)))) await powerDown(qmp);
}

const AGENT_MS = 3000;
/** The agent says nothing when it does as it was told, only when it does not. */
const REFUSAL_MS = 500;

async function shutDownByAgent(qmp: QmpClient, socket: string): Promise<boolean> {
  const line = await findLine(qmp, WORK.agent);
  if (!line?.guestOpen || line.taken) return false;
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

/** Stops it and starts it in the background, with what was typed for the run before. */
export async function restartVm(context: Context, request: StopRequest): Promise<void> {
  const { work } = await openVm(context);
  const typed = work.state === "present" ? work.mark.run?.typed : undefined;
  await stopVm(context, request);
  if (typed) {
    const { options } = context;
    options.settings = { ...typed.settings, ...options.settings };
    const lists = ["FORWARDS", "SHARES", ...(options.imagesCleared ? [] : ["IMAGES" as const])] as const;
    for (const name of lists)
      options.additions[name] = [...(typed.additions[name] ?? []), ...(options.additions[name] ?? [])];
  }
  await runVm(context, { detach: true, ssh: typed?.ssh });
}

/** Stops the guest's clock, or lets it go on. */
export async function setPaused(context: Context, paused: boolean): Promise<void> {
  await withLive(context, paused ? "pause" : "resume", async ({ qmp }) => {
    await qmp.execute(paused ? "stop" : "cont");
    const { status } = (await qmp.execute("query-status")) as { status: string };
    if ((status === "running") === paused)
      throw new VmError("io", `qemu did not do it: the guest is ${status}`);
  });
  log.success(paused ? "the guest stands still" : "the guest goes on");
}
