/**
 * Disks that are copied from a repository while the VM runs. A process of their own serves them (snapshot/remote/keeper.ts);
 * what any command needs to know of them is here.
 */
import { realpathSync } from "node:fs";
import { basename, join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import type { DiskBus, ImageRequest, ReadImage } from "../machine/types.ts";
import { describeHolder, findByArgument, readArgv, type Holder } from "../process/holders.ts";
import { listFuseMounts } from "../process/mounts.ts";
import { addSnapshotNode } from "../live/lend.ts";
import { listAllocated } from "../qemu/allocated-clusters.ts";
import { buildReopenedDisk, isBase, nameBase } from "../qemu/devices/disk.ts";
import { buildUnreliableNode } from "../qemu/devices/image.ts";
import { readVirtualBytes } from "../qemu/image-header.ts";
import { listBlockNodes, removeNode } from "../qmp/block.ts";
import { QmpClient } from "../qmp/client.ts";
import { diskNumber, HOST, isDiskName, WORK } from "../store/layout.ts";
import { updateMark } from "../store/mark.ts";
import { ownDisks } from "../store/own-disks.ts";
import { remove } from "../store/remove.ts";
import { findSnapshotImage, isArriving } from "../store/snapshot-images.ts";
import { isTemporaryUsed } from "../store/temporary.ts";
import type { Workdir } from "../store/workdir.ts";
import { hasSpaceToResume } from "./guest-errors.ts";
import { findRunning } from "./in-use.ts";
import { sendSignal } from "./kill-machine.ts";
import type { Status } from "./status-types.ts";

/** Names of the disks of which a part is in the repository only, by their headers. */
export const listArriving = ({ dir }: Pick<Workdir, "dir">): string[] =>
  ownDisks(dir).filter((name) => {
    try {
      return isArriving(join(dir, name));
    } catch {
      // Reported where the disk is used.
      return true;
    }
  });

/** The same, or all disks if what their headers say is not flushed. */
function listUnsettled(dir: string): string[] {
  const found = listArriving({ dir });
  return found.length > 0 ? found : ownDisks(dir);
}

/**
 * Does a disk on that bus wait for the repository? qemu's NVMe device has no `rerror`, so that the guest would be shown an error;
 * a BIOS soon gives up on a USB stick.
 */
export const canWait = (bus: DiskBus): boolean => bus !== "NVME" && bus !== "USB";

/** @throws 78 for a disk that is on another bus now */
export function refuseHasty(images: readonly ImageRequest[], { dir }: Workdir): void {
  const disk = images.find(
    ({ bus, path }) => !canWait(bus) && isDiskName(path) && isArriving(join(dir, path)),
  );
  if (disk)
    throw new VmError(
      "config",
      `a part of the disk ${disk.path} is only in the repository: not on ${disk.bus}`,
      {
        hint: "IMAGES in guest.env: put it on the bus that it was on, until it is complete",
      },
    );
}

const ANSWER_MS = 3000;

/** @throws 75 while disks are incomplete */
export async function refuseArriving(work: Workdir, command: string): Promise<void> {
  const { dir, mark } = work;
  if (!mark.arriving) return;
  const disks = listUnsettled(dir).join(", ");
  throw new VmError(
    "busy",
    `cannot ${command}: of ${disks} a part is only in the repository (${plain(mark.arriving.name)})`,
    { hint: adviseOn((await findRunning(work)) !== undefined, findKeeper(dir)) },
  );
}

/** How to have the disks completed. */
function adviseOn(running: boolean, keeper: Keeper): string {
  const follow = `follow them: ${commandLine("status")}`;
  if (!running) return `complete them by running the VM: ${commandLine("run", "--detach")}; ${follow}`;
  if (keeper === "gone") return `have them copied again: ${commandLine("resume")}; ${follow}`;
  return `they are complete once that is copied, while the VM runs; ${follow}`;
}

/** The backing file of such a disk, in the mounted repository. @throws 75 if it is not mounted */
export function resolveRemoteBase({ dir }: Workdir, snapshot: string, disk: string): ReadImage {
  if (findKeeper(dir) !== "serves")
    throw new VmError("busy", `a part of the disk ${disk} is only in the repository`, {
      hint: `complete it by running the VM: ${commandLine("run", "--detach")}`,
    });
  return findSnapshotImage(join(dir, WORK.repositoryLink, HOST.backups), snapshot, basename(disk));
}

/** The process that serves the disks: `away` if it cannot read the repository, and tries again. */
export type Keeper = "serves" | "away" | "gone";

export function findKeeper(workdir: string): Keeper {
  const link = join(workdir, WORK.repositoryLink);
  if (!lstatOf(link)?.isSymbolicLink()) return "gone";
  try {
    const directory = realpathSync(link);
    if (!isTemporaryUsed(directory)) return "gone";
    return listFuseMounts(directory).length > 0 ? "serves" : "away";
  } catch {
    return "gone";
  }
}

/** First word of its command line (cli/start.ts). */
export const KEEPER_WORD = "__keep";
const KEEPER_END_MS = 10_000;

/** Ends it, and waits until it has unmounted the repository. For a VM that is off: its symlink may be gone. */
export async function endKeeper(hostdir: string): Promise<void> {
  const find = (): Holder[] =>
    findByArgument("", hostdir).filter(({ pid }) => readArgv(pid).includes(KEEPER_WORD));
  const keepers = find();
  for (const keeper of keepers) sendSignal(keeper, "SIGTERM");
  if (keepers.length === 0) return;
  for (const deadline = Date.now() + KEEPER_END_MS; find().length > 0; await Bun.sleep(POLL_MS))
    if (Date.now() > deadline)
      return log.warn(`${describeHolder(keepers[0]!)}, which reads the repository, does not end`);
}

/** Why the repository cannot be read: a file in the directory of the process that serves the disks. */
export const REASON = "reason";

/** For `status`. */
export async function describeArriving(work: Workdir, running: boolean): Promise<Pick<Status, "arriving">> {
  const { arriving } = work.mark;
  const disks = running ? listArriving(work) : listUnsettled(work.dir);
  if (!arriving || disks.length === 0) return {};
  const repository = running ? findKeeper(work.dir) : "gone";
  const jobs = running ? await readJobs(work) : [];
  const percent = percentOfJobs(jobs) ?? measureDisks(work.dir, disks);
  const isFull = jobs.some(({ status }) => status === "paused") && !hasSpaceToResume(work.dir);
  return {
    arriving: {
      snapshot: arriving.name,
      id: arriving.id,
      disks,
      mounted: repository === "serves",
      repository,
      ...(repository === "away" && readReason(work.dir)),
      ...(percent !== undefined && { percent }),
      ...(isFull && { full: work.dir }),
    },
  };
}

function readReason(workdir: string): { reason?: string } {
  const reason = readSmall(join(workdir, WORK.repositoryLink, REASON));
  return reason ? { reason: plain(reason) } : {};
}

type CopyingJob = Awaited<ReturnType<typeof listCopying>>[number];

/** None if qemu does not say. */
async function readJobs({ dir }: Workdir): Promise<CopyingJob[]> {
  try {
    using qmp = await connect(dir);
    return await listCopying(qmp.client);
  } catch {
    return [];
  }
}

/** How much of the disks that are still copied is here. */
function percentOfJobs(jobs: readonly CopyingJob[]): number | undefined {
  const total = jobs.reduce((sum, job) => sum + job["total-progress"], 0);
  const done = jobs.reduce((sum, job) => sum + job["current-progress"], 0);
  return total > 0 ? Math.floor((100 * done) / total) : undefined;
}

/** How long `status` reads tables of disks. */
const MEASURE_MS = 200;

/** The same of disks that no job copies, by their tables; undefined if these are large. */
function measureDisks(dir: string, disks: readonly string[]): number | undefined {
  const deadline = performance.now() + MEASURE_MS;
  const isLate = (): boolean => performance.now() > deadline;
  let total = 0;
  let here = 0;
  for (const name of disks) {
    const path = join(dir, name);
    const ranges = listAllocated(path, isLate);
    if (!ranges || isLate()) return undefined;
    total += readVirtualBytes(path) ?? 0;
    here += ranges.reduce((sum, [, length]) => sum + length, 0);
  }
  // A part is missing, or may be.
  return total > 0 ? Math.min(99, Math.floor((100 * here) / total)) : undefined;
}

async function connect(workdir: string): Promise<Disposable & { client: QmpClient }> {
  const client = await QmpClient.connect(join(workdir, WORK.qmp), ANSWER_MS, ANSWER_MS);
  return { client, [Symbol.dispose]: () => client.close() };
}

/**
 * Records that all disks are complete, once a running qemu has flushed them: nothing proves that one which has ended had. The
 * caller holds the VM's lock.
 * @returns the working files as they are
 */
export async function settleArriving(work: Workdir): Promise<Workdir> {
  if (listArriving(work).length > 0 || (await findRunning(work)) === undefined) return work;
  if (!(await flushDisks(work))) return work;
  updateMark(work.dir, { arriving: undefined });
  remove(join(work.dir, WORK.repositoryLink));
  const { arriving: _arriving, ...mark } = work.mark;
  return { ...work, mark };
}

/** qemu flushes what it opens again, and reports if that fails; `flush` of its monitor does not. */
async function flushDisks(work: Workdir): Promise<boolean> {
  try {
    using qmp = await connect(work.dir);
    const nodes = new Set((await listBlockNodes(qmp.client)).map(({ node }) => node));
    const disks = ownDisks(work.dir).filter((name) => nodes.has(nodeOfFile(name)));
    const options = disks.map((name) => buildReopenedDisk(diskNumber(name)!, null));
    await qmp.client.execute("blockdev-reopen", { options });
    await removeBases(qmp.client);
    return true;
  } catch {
    // The next command tries again.
    return false;
  }
}

const JOB = "arrive-";

/** Those that copy disks. */
const listCopying = async (qmp: QmpClient) =>
  (await qmp.execute("query-jobs")).filter(({ id }) => id.startsWith(JOB));

/** `disk0` */
const nodeOfFile = (name: string): string => `disk${diskNumber(name)}`;

/**
 * Starts a job for each disk that is incomplete, all at once, or resumes it after an error.
 * @returns whether one is resumed
 */
export async function continueCopying(qmp: QmpClient, work: Workdir): Promise<boolean> {
  let resumed = false;
  const jobs = await qmp.execute("query-jobs");
  for (const name of listArriving(work)) {
    const id = `${JOB}${nodeOfFile(name)}`;
    const job = jobs.find((one) => one.id === id);
    if (!job)
      await qmp.execute("block-stream", { "job-id": id, device: nodeOfFile(name), "on-error": "stop" });
    else if (job.status === "paused") {
      await qmp.execute("job-resume", { id });
      resumed = true;
    }
  }
  return resumed;
}

/** Bytes that qemu has copied, or looked at; undefined if no job runs. */
export async function readCopied(qmp: QmpClient): Promise<number | undefined> {
  const jobs = await listCopying(qmp);
  if (!jobs.some(({ status }) => status === "running")) return undefined;
  return jobs.reduce((sum, job) => sum + job["current-progress"], 0);
}

/**
 * Has a running qemu read the disks' backing files in a repository that was mounted again: what it has open of the last mount
 * stays dead.
 * @param qmp connected to the monitor for short requests
 */
export async function reconnectDisks(qmp: QmpClient, work: Workdir): Promise<void> {
  await removeBases(qmp);
  for (const name of listArriving(work)) {
    const node = nodeOfFile(name);
    await endJob(qmp, `${JOB}${node}`);
    // Complete since.
    if (!isArriving(join(work.dir, name))) continue;
    const disk = join(work.dir, name);
    const base = resolveRemoteBase(work, work.mark.arriving!.name, disk);
    const backing = nameBase({ number: diskNumber(name)! }, Date.now());
    const opened = { ...buildUnreliableNode(base), "node-name": backing };
    // No snapshot is made meanwhile, whose monitor this is.
    await addSnapshotNode(qmp, work.dir, opened, WORK.backup);
    await qmp.execute("blockdev-reopen", { options: [buildReopenedDisk(diskNumber(name)!, backing)] });
  }
}

/** Removes the nodes of earlier backing files, which keep them open: qemu refuses to remove one that is in use. */
async function removeBases(qmp: QmpClient): Promise<void> {
  for (const { node } of await listBlockNodes(qmp))
    if (isBase(node)) await removeNode(qmp, node).catch(() => {});
}

/** How long qemu may take to end a job. */
const END_MS = 10_000;
const POLL_MS = 20;

async function endJob(qmp: QmpClient, id: string): Promise<void> {
  const find = async () => (await qmp.execute("query-jobs")).find((job) => job.id === id);
  if (!(await find())) return;
  await qmp.execute("block-job-cancel", { device: id, force: true });
  for (const deadline = Date.now() + END_MS; await find(); await Bun.sleep(POLL_MS))
    if (Date.now() > deadline) throw new VmError("io", `qemu does not end the block job ${id}`);
}
