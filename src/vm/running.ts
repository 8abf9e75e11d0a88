import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { QmpClient } from "../qmp/client.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import { findRunning } from "./in-use.ts";
import { findHostdir, openVm, type Vm } from "./find.ts";
import { type Workdir } from "../store/workdir.ts";
import { requireVm } from "../store/no-vm.ts";
import { requireOwn } from "./ownership.ts";
import { resumeWithRoom } from "./resume.ts";

/** A VM that runs, and a conversation with its qemu. */
export interface Live {
  vm: Vm;
  work: Workdir;
  qmp: QmpClient;
}

/** Several commands may want qemu's one conversation at the same time; each is short. */
const CONVERSATION_MS = 10_000;

/**
 * Talks to the running VM; takes no lock, so that others may look and steer at the same time.
 * @param command what is done, for the error messages
 * @throws 66 when the VM does not run, 75 when its qemu does not answer
 */
export async function withLive<T>(
  context: Context,
  command: string,
  use: (live: Live) => Promise<T>,
): Promise<T> {
  const { vm, work } = await requireRunning(context, command);
  const qmp = await QmpClient.connect(join(work.dir, WORK.qmp), CONVERSATION_MS);
  try {
    return await use({ vm, work, qmp });
  } finally {
    qmp.close();
  }
}

/**
 * Finds the running VM without a word to its qemu.
 * @param start the command that starts it, for the hint
 * @throws 66 when it does not run
 */
export async function requireRunning(
  context: Context,
  command: string,
  start = ["run", "--detach"],
): Promise<{ vm: Vm; work: Workdir }> {
  requireOwn(context, findHostdir(context), command);
  requireVm(findHostdir(context));
  const vm = await openVm(context);
  if (vm.work.state !== "present" || (await findRunning(vm.work)) === undefined)
    throw new VmError("noInput", `cannot ${command}: the VM in ${vm.hostdir} is not running`, {
      hint: `start it: ${commandLine(...start)}`,
    });
  await resumeWithRoom(vm.work);
  return { vm, work: vm.work };
}
