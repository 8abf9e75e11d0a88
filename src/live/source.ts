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
import { beginFleecing, type Fleecing } from "./fleece.ts";
import { NODE } from "./names.ts";
import type { Workdir } from "../store/workdir.ts";
import { damagedDisk } from "../store/damaged-disk.ts";
import type { DiskSource, OpenDisk, Source } from "./disk-source.ts";

/** Another snapshot may just be coming to its end. */
const CONNECT_MS = 10_000;

/** The bitmap that a job reads, where it reads the moment. */
const LENT = "vm-lent";

/** Opens the conversation in which a snapshot is made. @throws 75 when somebody else is in it */
export async function connectBackupMonitor(work: Workdir): Promise<QmpClient> {
  // Absent in a VM that an earlier version of this program has started.
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
  new VmError("busy", "cannot back up: the VM runs, but its qemu cannot be spoken to", {
    hint: `shut the guest down first: ${commandLine("stop")}`,
  });

/** @throws 69 for a qemu that cannot make snapshots of a running guest */
function requireLive(version: string): void {
  if (isSince(version, LIVE_SINCE)) return;
  throw new VmError(
    "unavailable",
    `cannot back up the running VM: live snapshots need qemu ${LIVE_SINCE.join(".")} or later, and it runs in ${version}`,
    { hint: `back it up while it is off: ${commandLine("stop")} && ${commandLine("backup")}` },
  );
}

/**
 * The disks of the running VM.
 * @param staged takes what the guest overwrites meanwhile, and copies of small files
 * @throws 69 where its qemu cannot do that
 */
export async function openLive(
  work: Workdir,
  sources: readonly Source[],
  staged: string,
): Promise<DiskSource> {
  const qmp = await connectBackupMonitor(work);
  try {
    requireLive(qmp.version);
    // Under the VM's lock nobody else makes one: what is there was left by a killed command.
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
      freeze: async (actions) => {
        fleecing = await beginFleecing({ qmp, disks, workdir: work.dir, directory: staged, actions, files });
        return {
          consistency: fleecing.frozen ? "agent" : "crash-consistent",
          nodeOf: ({ node }) => NODE.access + node,
          exposeBitmap: (disk, bitmap) => lendBitmap(qmp, disk, bitmap),
          refused: fleecing.refused,
        };
      },
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
      throw new VmError(
        "busy",
        `cannot back up: the running qemu does not have ${path} open as we had told it`,
        {
          hint: `restart it, so that this version starts it: ${commandLine("restart")}`,
        },
      );
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

/** A job asks for a bitmap of the node that it reads: the disk's is copied there. It may note more by now: no harm. */
async function lendBitmap(qmp: QmpClient, { node }: OpenDisk, bitmap: string): Promise<string> {
  const access = NODE.access + node;
  await qmp.execute("block-dirty-bitmap-add", { node: access, name: LENT, disabled: true });
  await qmp.execute("block-dirty-bitmap-merge", {
    node: access,
    target: LENT,
    bitmaps: [{ node, name: bitmap }],
  });
  return LENT;
}

/** The copies of small files that were made with the moment. */
export const copiedSources = (sources: readonly Source[], staged: string): Source[] =>
  sources.map((source) => (source.disk ? source : { ...source, path: join(staged, basename(source.path)) }));
