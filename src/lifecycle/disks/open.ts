import { join, resolve } from "node:path";
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { isSameFile } from "../../live/same-file.ts";
import { quoteLine } from "../../lib/text.ts";
import { WORK } from "../../store/layout.ts";
import type { Workdir } from "../../store/workdir.ts";
import { isListening } from "../../process/unix-socket.ts";
import { QmpClient } from "../../qmp/client.ts";
import type { Context } from "../../vm/context.ts";
import { findStoredDisks, type StoredDisk } from "../../vm/disks.ts";
import { requireWork, type Vm } from "../../vm/find.ts";
import { findRunning, refuseSuspended } from "../../vm/in-use.ts";
import { Media } from "../../vm/media.ts";
import { refuseTemplate } from "../../vm/template.ts";
import { withWholeVm } from "../../vm/open.ts";

/** qemu's monitor accepts one connection at a time; those of other commands are short. */
const CONNECT_MS = 10_000;

/** A VM whose machine is changed, under its lock. */
export interface Changing {
  context: Context;
  vm: Vm;
  work: Workdir;
  /** The running machine's monitor; undefined if the VM is off. */
  qmp: QmpClient | undefined;
}

/**
 * Opens the VM for a change of its machine, running or off.
 * @param command for the error messages
 * @throws 64 with --image, which is no setting of the VM; 66 without a VM; 75 while a job runs
 */
export const withMachine = <T>(
  context: Context,
  command: string,
  use: (changing: Changing) => Promise<T>,
): Promise<T> =>
  withWholeVm(context, command, async (vm) => {
    refuseTypedImages(context, command);
    refuseTemplate(vm, command);
    const work = requireWork(vm, command);
    const qmp = await connectRunning(work, command);
    if (!qmp) refuseSuspended(work, command);
    try {
      return await use({ context, vm, work, qmp });
    } finally {
      qmp?.close();
    }
  });

/** @throws 64 with --image, which is no setting of the VM */
export function refuseTypedImages({ options }: Context, command: string): void {
  if (options.settings.IMAGES === undefined && (options.additions.IMAGES ?? []).length === 0) return;
  throw new VmError("usage", `cannot ${command} with --image, which applies to one command line`, {
    hint: `add the image to the VM: ${commandLine("disk", "add", "TYPE=PATH")}`,
  });
}

/** The monitor of the VM's qemu; undefined if none uses the working files. @throws 75 if it cannot be used */
async function connectRunning(work: Workdir, command: string): Promise<QmpClient | undefined> {
  const running = await findRunning(work);
  if (running === undefined) return undefined;
  if (await isListening(join(work.dir, WORK.control)))
    throw new VmError("busy", `cannot ${command}: a job is running`, { hint: "wait until it ends" });
  const socket = join(work.dir, WORK.qmp);
  if (!(await isListening(socket)))
    throw new VmError("busy", `cannot ${command}: the VM is running without a monitor (${running})`, {
      hint: `shut the guest down first: ${commandLine("stop")}`,
    });
  return QmpClient.connect(socket, CONNECT_MS);
}

/** The images in guest.env, in boot order. */
export async function listStoredDisks(context: Context, vm: Vm, work: Workdir): Promise<StoredDisk[]> {
  const paths = vm.settings.IMAGES.map(({ path }) => path);
  return findStoredDisks(vm, work, await new Media(context, vm).macros(paths, work.dir));
}

/**
 * Finds a disk by its number, its serial number, or its image.
 * @param name `1`, `disk-1`, `disk-1.img`, or a path
 * @throws 66 if there is none
 */
export function findStored(
  { context }: Pick<Changing, "context">,
  stored: readonly StoredDisk[],
  name: string,
  command: string,
): StoredDisk {
  const number = /^(?:disk-)?(\d{1,4})$/.exec(name)?.[1];
  const path = resolve(context.cwd, name);
  const found =
    number === undefined
      ? stored.find(
          (disk) => disk.request.path === name || (disk.path !== undefined && isSameFile(disk.path, path)),
        )
      : stored.find((disk) => disk.number === Number(number));
  if (found) return found;
  throw new VmError("noInput", `cannot ${command}: this VM has no disk ${quoteLine(name)}`, {
    hint: `show its disks: ${commandLine("disk", "list")}`,
  });
}
