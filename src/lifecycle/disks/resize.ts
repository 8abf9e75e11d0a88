import { statSync } from "node:fs";
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { formatSize } from "../../lib/size.ts";
import { listAttached, type AttachedDisk } from "../../live/attached.ts";
import { findAttached } from "../../live/same-file.ts";
import type { ReadImage } from "../../machine/types.ts";
import { isImageInUse } from "../../qemu/image-lock.ts";
import { growImage, readImageSize } from "../../qemu/img.ts";
import type { QmpClient } from "../../qmp/client.ts";
import { QmpError } from "../../qmp/errors.ts";
import { findChardev } from "../../qmp/chardev.ts";
import { fileError, syncFile } from "../../store/files.ts";
import { WORK } from "../../store/layout.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { resolveDisk } from "../../vm/machine.ts";
import { findStored, listStoredDisks, withMachine } from "./open.ts";
import type { SizeRequest } from "./request.ts";

const COMMAND = "resize the disk";

/** A disk whose partition and filesystem must grow. */
export interface Grown {
  serial: string;
  /** In the running guest. */
  live: boolean;
}

/** Refuses if no job can run in the VM, which is off. */
export type RequireJob = (vm: Vm) => Promise<void>;

/** Disks whose new size a guest learns at once. */
const NOTICED = new Set(["VIRT", "SCSI"]);

/**
 * Grows a disk, in the running machine or in its image.
 * @param requireJob called before anything is changed, if a job must grow the filesystem
 * @returns what is left to do for `filesystem`
 * @throws 64 for a smaller size and for a block device, 66 for an unknown disk, 75 if another qemu uses the image
 */
export async function resizeDisk(
  context: Context,
  { name, size, filesystem }: { name: string; size: SizeRequest; filesystem: boolean },
  requireJob: RequireJob,
): Promise<Grown | undefined> {
  return withMachine(context, COMMAND, async (changing) => {
    const { vm, work, qmp } = changing;
    const stored = await listStoredDisks(context, vm, work);
    const { request, number, path } = findStored(changing, stored, name, COMMAND);
    if (path === undefined)
      throw new VmError("noInput", `cannot ${COMMAND}: ${request.path} is not available`);
    if (statSync(path, { throwIfNoEntry: false })?.isBlockDevice())
      throw new VmError("usage", `cannot ${COMMAND}: ${path} is a block device of the host`, {
        hint: "resize it with the host's own tools (lvextend), and restart the VM",
      });
    const attached = qmp && findAttached(await listAttached(qmp), path);
    if (filesystem && qmp) await requireGrowing(qmp, attached, ["disk", "resize", name, size.text, "--fs"]);
    const image: ReadImage | undefined = attached ? undefined : resolveDisk(vm, request, number, path, work);
    const oldBytes = attached ? attached.virtualBytes : await readImageSize(image!);
    const bytes = size.more ? oldBytes + size.bytes : size.bytes;
    if (bytes < oldBytes)
      throw new VmError(
        "usage",
        `cannot ${COMMAND} to ${formatSize(bytes)}: it has ${formatSize(oldBytes)}, and shrinking would cut off data`,
        { hint: "give a larger size, or one to add: +10G" },
      );
    if (filesystem && !qmp) await requireJob(vm);
    const serial = attached ? attached.node.replace("disk", "disk-") : `disk-${number}`;
    const grown = filesystem ? { serial, live: qmp !== undefined } : undefined;
    if (bytes === oldBytes) {
      log.info(`disk ${number} has ${formatSize(bytes)} already`);
      return grown;
    }
    if (attached) await resizeAttached(qmp!, attached, bytes);
    else {
      if (isImageInUse(path)) throw new VmError("busy", `cannot ${COMMAND}: another qemu has ${path} open`);
      await growImage(image!, bytes);
      await syncFile(path).catch((error: unknown) => {
        throw fileError(`cannot ${COMMAND}`, error);
      });
    }
    log.success(`resized disk ${number} from ${formatSize(oldBytes)} to ${formatSize(bytes)}`);
    if (attached?.plugged && !NOTICED.has(request.bus))
      log.info(`the guest may see the new size after a restart only: its bus is ${request.bus}`);
    return grown;
  });
}

/** @throws 75 if qemu cannot resize it while it is attached, as on NVMe */
async function resizeAttached(qmp: QmpClient, { node }: AttachedDisk, bytes: number): Promise<void> {
  try {
    await qmp.execute("block_resize", { "node-name": node, size: bytes });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    throw new VmError("busy", `cannot ${COMMAND} while the guest uses it: ${error.reply.desc}`, {
      cause: error,
      hint: `shut the guest down first: ${commandLine("stop")}`,
    });
  }
}

/** Can the filesystem grow in the running guest? @throws 69 without an agent, 75 if it does not have the disk */
async function requireGrowing(
  qmp: QmpClient,
  attached: AttachedDisk | undefined,
  words: readonly string[],
): Promise<void> {
  const hint = `let a job grow it while the VM is off: ${commandLine("stop")} && ${commandLine(...words)}`;
  if (!attached?.plugged)
    throw new VmError("busy", `cannot ${COMMAND} with --fs: the running guest does not have it`, { hint });
  if ((await findChardev(qmp, WORK.agent))?.guestOpen) return;
  throw new VmError(
    "unavailable",
    `cannot ${COMMAND} with --fs: no guest agent answers in the running guest`,
    {
      hint: `${hint}\nor install qemu-guest-agent in the guest, and start it`,
    },
  );
}
