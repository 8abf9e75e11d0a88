import { statSync } from "node:fs";
import { basename, join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { isSince, LIVE_SINCE } from "../qemu/features.ts";
import { listBlockNodes } from "../qmp/block.ts";
import { QmpClient } from "../qmp/client.ts";
import { lstatOf } from "../lib/read-file.ts";
import { WORK } from "../store/layout.ts";
import { cleanUpLive } from "./clean-up.ts";
import { beginFleecing, explainLoss, type Fleecing } from "./fleece.ts";
import { ALLOCATED, NODE } from "./names.ts";
import type { Workdir } from "../store/workdir.ts";
import { damagedDisk } from "../store/damaged-disk.ts";
import type { DiskSource, OpenDisk, Source } from "./disk-source.ts";

/** Another snapshot may be about to finish. */
const CONNECT_MS = 10_000;

/** Copy of a bitmap on the access node, for the job. */
const EXPOSED_BITMAP = "vm-exposed";

/** Connects to the QMP monitor for snapshots. @throws 75 if another process is connected to it */
export async function connectBackupMonitor(work: Workdir): Promise<QmpClient> {
  // WORK.backup is absent in a VM that an earlier version of this program has started.
  const socket = [WORK.backup, WORK.monitor]
    .map((name) => join(work.dir, name))
    .find((path) => lstatOf(path));
  if (socket === undefined) throw unreachable();
  try {
    return await QmpClient.connect(socket, CONNECT_MS);
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
  if (isSince(version, LIVE_SINCE)) return;
  throw new VmError(
    "unavailable",
    `cannot back up the running VM: live snapshots need qemu ${LIVE_SINCE.join(".")} or later, and this is ${version}`,
    { hint: `back it up while it is off: ${commandLine("stop")} && ${commandLine("backup")}` },
  );
}

/**
 * Opens the disks of the running VM.
 * @param staged directory for copy-before-write data, and copies of small files
 * @throws 69 if its qemu cannot make live snapshots
 */
export async function openLive(
  work: Workdir,
  sources: readonly Source[],
  staged: string,
): Promise<DiskSource> {
  const qmp = await connectBackupMonitor(work);
  try {
    requireLive(qmp.version);
    // This process holds the VM's lock: an existing live snapshot was left by a killed command.
    await cleanUpLive(qmp, work.dir);
    const disks = await findDisks(qmp, sources);
    const files = sources.filter(({ disk }) => !disk).map(({ name }) => name);
    let fleecing: Fleecing | undefined;
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
      freeze: async (actions, full) => {
        const request = { qmp, disks, workdir: work.dir, directory: staged, actions, files, full };
        fleecing = await beginFleecing(request);
        return {
          consistency: fleecing.frozen ? "agent" : "crash-consistent",
          nodeOf: ({ node }) => NODE.access + node,
          select: async (disk, only) => ({
            bitmap: await exposeBitmap(qmp, disk, only === "top" ? ALLOCATED : only.bitmap),
          }),
          refused: fleecing.refused,
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

/** The nodes of the VM's own disks, by the files that qemu has open. */
async function findDisks(qmp: QmpClient, sources: readonly Source[]): Promise<OpenDisk[]> {
  const nodes = await listBlockNodes(qmp);
  return sources
    .filter(({ disk }) => disk)
    .map(({ name, path }) => {
      const opened = nodes.find(
        ({ node, driver, file }) => node.endsWith("-file") && driver === "file" && isSameFile(file, path),
      );
      const format = nodes.find(({ node, driver }) => driver === "qcow2" && `${node}-file` === opened?.node);
      if (format?.corrupt) throw damagedDisk(path, "the running qemu has marked it corrupt");
      if (format) return { name, ...format };
      throw new VmError("busy", `cannot back up the running VM: its qemu has no block node for ${path}`, {
        hint: `restart it with this version: ${commandLine("restart")}`,
      });
    });
}

function isSameFile(one: string, other: string): boolean {
  try {
    const [a, b] = [statSync(one), statSync(other)];
    return a.ino === b.ino && a.dev === b.dev;
  } catch {
    return one === other;
  }
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
