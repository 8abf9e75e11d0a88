import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { QmpClient } from "../qmp/client.ts";
import { lstatOf } from "../lib/read-file.ts";
import { SUSPENDING, WORK } from "../store/layout.ts";
import { isSuspended } from "../store/is-suspended.ts";
import type { Context } from "./context.ts";
import { findRunning } from "./in-use.ts";
import { findHostdir, openVm, type Vm } from "./find.ts";
import { type Workdir } from "../store/workdir.ts";
import { requireVm } from "../store/no-vm.ts";
import { requireOwn } from "./ownership.ts";
import { resumeIfSpace } from "./resume.ts";

/** A running VM, and its monitor. */
export interface Live {
  vm: Vm;
  work: Workdir;
  qmp: QmpClient;
}

/** qemu's monitor accepts one connection at a time; those of other commands are short. */
const CONNECT_MS = 10_000;

/**
 * Connects to the monitor of the running VM; takes no lock, so that other commands can do the same.
 * @param command for the error messages
 * @throws 66 if the VM is not running, 75 if its qemu does not answer
 */
export async function withLive<T>(
  context: Context,
  command: string,
  use: (live: Live) => Promise<T>,
): Promise<T> {
  const { vm, work } = await requireRunning(context, command);
  return withMonitor(work, (qmp) => use({ vm, work, qmp }));
}

/** Connects to the monitor of a running VM. @throws 75 if its qemu does not answer */
export async function withMonitor<T>({ dir }: Workdir, use: (qmp: QmpClient) => Promise<T>): Promise<T> {
  const qmp = await QmpClient.connect(join(dir, WORK.qmp), CONNECT_MS);
  try {
    return await use(qmp);
  } finally {
    qmp.close();
  }
}

/** Is the VM being suspended or resumed, or was that interrupted? */
const isUnsettled = async (work: Workdir): Promise<boolean> =>
  lstatOf(join(work.dir, SUSPENDING)) !== undefined ||
  (isSuspended(work.dir) && (await findRunning(work)) !== undefined);

/**
 * Opens the running VM, without connecting to its monitor.
 * @param start the command that starts it, for the hint
 * @throws 66 if it is not running
 */
export async function requireRunning(
  context: Context,
  command: string,
  start = ["run", "--detach"],
): Promise<{ vm: Vm; work: Workdir }> {
  requireOwn(context, findHostdir(context), command);
  requireVm(findHostdir(context));
  let vm = await openVm(context);
  // Its guest must not be resumed now, and does not answer. With the lock free, a command was interrupted.
  if (vm.work.state === "present" && (await isUnsettled(vm.work))) {
    await (await import("./open.ts")).withLockedVm(context, command, async () => {});
    vm = await openVm(context);
  }
  if (vm.work.state !== "present" || (await findRunning(vm.work)) === undefined) {
    const suspended = vm.work.state === "present" && isSuspended(vm.work.dir);
    throw new VmError(
      "noInput",
      `cannot ${command}: the VM in ${vm.hostdir} is ${suspended ? "suspended" : "not running"}`,
      { hint: `${suspended ? "resume" : "start"} it: ${commandLine(...start)}` },
    );
  }
  await resumeIfSpace(vm.work);
  return { vm, work: vm.work };
}
