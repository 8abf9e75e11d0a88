import { basename, join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { buildWritableNode } from "../qemu/devices/image.ts";
import { formatSince, isSince, LIVE_SNAPSHOTS } from "../qemu/features.ts";
import { isImageInUse } from "../qemu/image-lock.ts";
import { listBlockNodes, removeNode } from "../qmp/block.ts";
import { QmpClient } from "../qmp/client.ts";
import { lstatOf } from "../lib/read-file.ts";
import { WORK } from "../store/layout.ts";
import { listAttached } from "./attached.ts";
import { findAttached } from "./same-file.ts";
import { cleanUpLive, removeFleecing } from "./clean-up.ts";
import { beginFleecing, explainLoss, type Fleecing } from "./fleece.ts";
import { addSnapshotNode } from "./lend.ts";
import { ALLOCATED, NODE } from "./names.ts";
import { openMachine, prepareState } from "./ram.ts";
import type { Workdir } from "../store/workdir.ts";
import { damagedDisk } from "../store/damaged-disk.ts";
import type { DiskSource, OpenDisk, Source } from "./disk-source.ts";

/** Another snapshot may be about to finish. */
const CONNECT_MS = 10_000;

/** Copy of a bitmap on the access node, for the job. */
const EXPOSED_BITMAP = "vm-exposed";

/** Connects to the QMP monitor for snapshots. @throws 75 if another process is connected to it */
export const connectBackupMonitor = (work: Workdir): Promise<QmpClient> =>
  withBackupMonitor(work, (socket) => QmpClient.connect(socket, CONNECT_MS));

async function withBackupMonitor<T>(work: Workdir, use: (socket: string) => Promise<T>): Promise<T> {
  // WORK.backup is absent in a VM that an earlier version of this program has started.
  const socket = [WORK.backup, WORK.monitor]
    .map((name) => join(work.dir, name))
    .find((path) => lstatOf(path));
  if (socket === undefined) throw unreachable();
  try {
    return await use(socket);
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ECONNREFUSED")) throw unreachable();
    throw error;
  }
}

const unreachable = (): VmError =>
  new VmError("busy", "cannot back up the running VM: cannot connect to its QMP monitor", {
    hint: `shut the guest down first: ${commandLine("stop")}`,
  });

/** @throws 69 if qemu cannot make live snapshots */
function requireLive(version: string): void {
  const { name, since } = LIVE_SNAPSHOTS;
  if (isSince(version, since)) return;
  throw new VmError(
    "unavailable",
    `cannot back up the running VM: ${name} need ${formatSince(since)}, and this is ${version}`,
    { hint: `back it up while it is off: ${commandLine("stop")} && ${commandLine("backup")}` },
  );
}

/**
 * Opens the disks of the running VM.
 * @param staged directory for copy-before-write data, and copies of small files
 * @param ramOf pid of its qemu, to save the state of the machine at the point in time, too (`machineDirectory`)
 * @throws 69 if its qemu cannot make live snapshots, 75 if it cannot save the state
 */
export async function openLive(
  work: Workdir,
  sources: readonly Source[],
  staged: string,
  ramOf?: number,
): Promise<DiskSource> {
  if (ramOf !== undefined) await withBackupMonitor(work, (socket) => prepareState(socket, staged));
  const qmp = await connectBackupMonitor(work);
  try {
    requireLive(qmp.version);
    // This process holds the VM's lock: an existing live snapshot was left by a killed command.
    await cleanUpLive(qmp, work.dir);
    const machine = ramOf === undefined ? undefined : await openMachine(qmp, ramOf, work.dir, staged);
    const disks = await openSources(qmp, work.dir, sources);
    const files = sources.filter(({ disk }) => !disk).map(({ path }) => path);
    let fleecing: Pick<Fleecing, "close"> | undefined = { close: () => closeIdle(qmp, disks) };
    const close = async (): Promise<void> => {
      const begun = fleecing;
      fleecing = undefined;
      try {
        await begun?.close();
      } finally {
        qmp.close();
      }
    };
    return {
      qmp,
      disks,
      machine,
      addImage: (node) => addSnapshotNode(qmp, work.dir, node),
      freeze: async (actions, full) => {
        const request = { qmp, disks, workdir: work.dir, directory: staged, actions, files, full };
        const begun = await beginFleecing({ ...request, saveMachine: machine?.save });
        fleecing = begun;
        return {
          consistency: begun.frozen ? "agent" : "crash-consistent",
          nodeOf: ({ node, idle }) => (idle ? node : NODE.access + node),
          select: async (disk, only) =>
            disk.idle
              ? only
              : { bitmap: await exposeBitmap(qmp, disk, only === "top" ? ALLOCATED : only.bitmap) },
          refused: begun.refused,
        };
      },
      explain: (error) => explainLoss(error, qmp, staged),
      close,
    };
  } catch (error) {
    qmp.close();
    throw error;
  }
}

/** Closes disks that were opened for a snapshot that did not begin. */
async function closeIdle(qmp: QmpClient, disks: readonly OpenDisk[]): Promise<void> {
  for (const { node } of disks)
    // After an error they are gone, or qemu is.
    if (node.startsWith(NODE.idle)) await removeNode(qmp, node).catch(() => {});
}

/**
 * The nodes of the VM's own disks, by the files that qemu has open. A disk that is not attached to the running machine, as
 * it was added for the next run, is opened for the time of the snapshot.
 */
async function openSources(qmp: QmpClient, workdir: string, sources: readonly Source[]): Promise<OpenDisk[]> {
  const attached = await listAttached(qmp);
  const own = sources.filter(({ disk }) => disk);
  for (const { name, path, base } of own) {
    if (findAttached(attached, path)) continue;
    if (isImageInUse(path))
      throw new VmError("busy", `cannot back up the running VM: its qemu has no block node for ${path}`, {
        hint: `restart it with this version: ${commandLine("restart")}`,
      });
    const node = buildWritableNode(path, NODE.idle + name, base);
    await addSnapshotNode(qmp, workdir, node).catch(async (error) => {
      await removeFleecing(qmp);
      throw error;
    });
  }
  const nodes = await listBlockNodes(qmp);
  return own.map(({ name, path }) => {
    const disk = findAttached(attached, path) ?? nodes.find(({ node }) => node === NODE.idle + name)!;
    if (disk.corrupt) throw damagedDisk(path, "the running qemu has marked it corrupt");
    const idle = !("plugged" in disk && disk.plugged);
    return { name, node: disk.node, virtualBytes: disk.virtualBytes, bitmaps: disk.bitmaps, idle };
  });
}

/**
 * Copies the disk's bitmap to the access node: a job takes a bitmap of the node that it reads. Later writes may be in it,
 * too, which is harmless.
 * @returns its name there
 */
async function exposeBitmap(qmp: QmpClient, { node }: OpenDisk, bitmap: string): Promise<string> {
  const access = NODE.access + node;
  await qmp.execute("block-dirty-bitmap-add", { node: access, name: EXPOSED_BITMAP, disabled: true });
  await qmp.execute("block-dirty-bitmap-merge", {
    node: access,
    target: EXPOSED_BITMAP,
    bitmaps: [{ node, name: bitmap }],
  });
  return EXPOSED_BITMAP;
}

/** Replaces paths of small files by those of their copies in `staged`. */
export const copiedSources = (sources: readonly Source[], staged: string): Source[] =>
  sources.map((source) => (source.disk ? source : { ...source, path: join(staged, basename(source.path)) }));
