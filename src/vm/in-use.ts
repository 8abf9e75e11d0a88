import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { describeHolder, findFileHolder, findUsers, readArgv, type Holder } from "../process/holders.ts";
import { isBlocksArgv } from "../qemu/blocks.ts";
import { isImageInUse, isLogHeld } from "../qemu/image-lock.ts";
import { isListening } from "../process/unix-socket.ts";
import { realPath } from "../lib/read-file.ts";
import { WORK } from "../store/layout.ts";
import { ownDisks } from "../store/own-disks.ts";
import { isSuspended } from "../store/is-suspended.ts";
import type { Workdir } from "../store/workdir.ts";

/** How long a terminated qemu may take to flush its images and exit. */
const END_WAIT_MS = 10_000;

const RETRY_MS = 50;

/**
 * Does a qemu use the working files? Checks its sockets, then locks on the images.
 * @returns the evidence, or undefined
 */
export async function findRunning(work: Workdir): Promise<string | undefined> {
  for (const name of [WORK.qmp, WORK.monitor])
    if (await isListening(join(work.dir, name))) return `qemu listens on ${join(work.dir, name)}`;
  for (const name of ownDisks(work.dir)) {
    const path = join(work.dir, name);
    if (isImageInUse(path) && !isHeldByBackup(path)) return `${describeImageHolder(path)} has ${path} open`;
  }
  return undefined;
}

/** By locks alone: takes microseconds if no qemu has the disks open. */
export const isAnyDiskInUse = (work: Workdir): boolean =>
  ownDisks(work.dir)
    .map((name) => join(work.dir, name))
    .some((path) => isImageInUse(path) && !isHeldByBackup(path));

/** A backup of a VM that is off opens the disks with a qemu, too, but without a guest. */
function isHeldByBackup(path: string): boolean {
  const holder = findImageHolder(path);
  return holder !== undefined && isBlocksArgv(readArgv(holder.pid));
}

/** Waits for the qemu of a killed backup to exit. The caller holds the VM's lock. */
export async function waitForKilledBackup(work: Workdir): Promise<void> {
  const deadline = Date.now() + END_WAIT_MS;
  for (const name of ownDisks(work.dir)) {
    const path = join(work.dir, name);
    while (isImageInUse(path) && isHeldByBackup(path) && Date.now() < deadline) await Bun.sleep(RETRY_MS);
  }
}

/** The process that has an image open; undefined if this user cannot see it. */
export const findImageHolder = (path: string): Holder | undefined => findFileHolder(new Set([path]));

/** The VM's qemu processes that this user can see, without those of a backup. */
export const findQemus = (work: Workdir): Holder[] =>
  findUsers(
    new Set(ownDisks(work.dir).flatMap((name) => realPath(join(work.dir, name)) ?? [])),
    realPath(work.dir) ?? work.dir,
    "qemu-system",
  ).filter(({ pid }) => !isBlocksArgv(readArgv(pid)));

function describeImageHolder(path: string): string {
  const holder = findImageHolder(path);
  return holder ? describeHolder(holder) : "qemu";
}

/** Refuses what changes the disks of a suspended VM: its guest would go on with others. @throws 75 */
export function refuseSuspended({ dir }: Workdir, command: string, hint = ""): void {
  if (!isSuspended(dir)) return;
  throw new VmError("busy", `cannot ${command}: the VM is suspended`, {
    hint: `resume it, and shut the guest down: ${commandLine("run", "--detach")} && ${commandLine("stop")}\nor discard its RAM, as a power cut would: ${commandLine("stop", "--force")}${hint}`,
  });
}

/**
 * Waits for what `findRunning` does not see: a qemu that a killed command has just started, which would take the sockets of the
 * next one, or one that is exiting. @returns as `findRunning`
 */
async function waitForStarting(work: Workdir): Promise<string | undefined> {
  for (const deadline = Date.now() + END_WAIT_MS; isStarting(work) && Date.now() < deadline;) {
    await Bun.sleep(RETRY_MS);
    const how = await findRunning(work);
    if (how !== undefined) return how;
  }
  return undefined;
}

/** Is there a qemu, or a program that starts it? */
export const isStarting = ({ dir }: Workdir): boolean => isLogHeld(join(dir, WORK.qemuLog));

/** Refuses while a qemu uses the working files. Otherwise no process changes the state of the TPM afterwards. */
export async function refuseRunning(work: Workdir, command: string, hint = ""): Promise<void> {
  const how = (await findRunning(work)) ?? (await waitForStarting(work));
  // `status` does without what ends a program.
  if (how === undefined) return (await import("./tpm.ts")).endTpm(work);
  throw new VmError("busy", `cannot ${command}: the VM is running (${how})`, {
    hint: `shut the guest down first: ${commandLine("stop")}${hint}`,
  });
}
