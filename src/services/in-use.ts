import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { describeHolder, findHolder, readArgv, type Holder } from "../process/holders.ts";
import { isBlocksArgv } from "../qemu/blocks.ts";
import { isImageInUse } from "../qemu/img.ts";
import { QmpClient } from "../qmp/client.ts";
import { isListening, quit } from "../qmp/commands.ts";
import { listDirectory } from "../store/files.ts";
import { isDiskName, WORK } from "../store/layout.ts";
import type { Present } from "../store/workdir.ts";

/** How long an ended qemu may take to flush its images and go. */
const END_WAIT_MS = 10_000;

const RETRY_MS = 50;

/** The VM's own disks, in order. */
export function ownDisks(directory: string): string[] {
  return listDirectory(directory)
    .filter(isDiskName)
    .toSorted((a, b) => Number(a.replace(/\D/g, "")) - Number(b.replace(/\D/g, "")));
}

/**
 * Does a qemu use the working files? Asks its sockets, then its locks on the images.
 * @returns how that is known, or undefined
 */
export async function findRunning(work: Present): Promise<string | undefined> {
  for (const name of [WORK.qmp, WORK.monitor])
    if (await isListening(join(work.dir, name))) return `qemu answers on ${join(work.dir, name)}`;
  for (const name of ownDisks(work.dir)) {
    const path = join(work.dir, name);
    if (isImageInUse(path) && !isHeldByBackup(path)) return `${describeImageHolder(path)} holds ${path}`;
  }
  return undefined;
}

/** The kernel's word for it, in microseconds where no qemu has them. */
export const isAnyDiskInUse = (work: Present): boolean =>
  ownDisks(work.dir)
    .map((name) => join(work.dir, name))
    .some((path) => isImageInUse(path) && !isHeldByBackup(path));

/** A backup of a VM that is off has a qemu open the disks, too: that one is no guest. */
function isHeldByBackup(path: string): boolean {
  const holder = findImageHolder(path);
  return holder !== undefined && isBlocksArgv(readArgv(holder.pid));
}

/** Waits for what a killed backup has left: its qemu closes the images, and goes. The caller holds the VM's lock. */
export async function outwaitKilledBackup(work: Present): Promise<void> {
  const deadline = Date.now() + END_WAIT_MS;
  for (const name of ownDisks(work.dir)) {
    const path = join(work.dir, name);
    while (isImageInUse(path) && isHeldByBackup(path) && Date.now() < deadline) await Bun.sleep(RETRY_MS);
  }
}

/** The process that has an image open, as far as it can be seen. */
export const findImageHolder = (path: string): Holder | undefined => findHolder(new Set([path]));

function describeImageHolder(path: string): string {
  const holder = findImageHolder(path);
  return holder ? describeHolder(holder) : "qemu";
}

/** Refuses while a qemu uses the working files. */
export async function refuseRunning(work: Present, command: string, hint = ""): Promise<void> {
  const how = await findRunning(work);
  if (how === undefined) return;
  throw new VmError("busy", `cannot ${command}: the VM is running (${how})`, {
    hint: `shut the guest down first: ${commandLine("stop")}${hint}`,
  });
}

/** Ends qemu and waits until it has let go of its files. */
export async function endMachine(work: Present): Promise<void> {
  const deadline = Date.now() + END_WAIT_MS;
  for (let first = true; (await findRunning(work)) !== undefined; first = false) {
    if (first) log.info("ending the running guest");
    if (Date.now() > deadline) return;
    if (!(await quitByQmp(work))) killHolder(work);
    await Bun.sleep(RETRY_MS);
  }
}

/** False when nobody answers there, or not yet: the queue for qemu's one conversation is short. */
async function quitByQmp(work: Present): Promise<boolean> {
  const socket = join(work.dir, WORK.qmp);
  try {
    const qmp = await QmpClient.connect(socket);
    await quit(qmp);
    await qmp.closed;
    return true;
  } catch {
    return isListening(socket);
  }
}

/** Where the sockets are gone: SIGTERM makes qemu flush its images, too. */
function killHolder(work: Present): void {
  const holders = ownDisks(work.dir).map((name) => findImageHolder(join(work.dir, name)));
  const qemu = holders.find((holder) => holder?.name.startsWith("qemu-system"));
  if (qemu) process.kill(qemu.pid, "SIGTERM");
}
