import { closeSync, copyFileSync, fdatasync, openSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { SignalError, VmError } from "../lib/errors.ts";
import { createImage } from "../qemu/new-image.ts";
import { settingDrive } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { TransactionAction } from "../qmp/commands.ts";
import { QmpDisconnect, QmpError } from "../qmp/errors.ts";
import { remove } from "../store/remove.ts";
import type { OpenDisk } from "./disk-source.ts";
import { removeFleecing } from "./clean-up.ts";
import { whileFrozen } from "./freeze.ts";
import { NODE } from "./names.ts";

/** What is done to a running VM to get hold of one moment of it. */
export interface FleecingRequest {
  qmp: QmpClient;
  disks: readonly OpenDisk[];
  workdir: string;
  /** Takes what the guest overwrites while the moment is copied. */
  directory: string;
  /** Done at that very moment. */
  actions: readonly TransactionAction[];
  /** Small files that are copied to `directory` then. */
  files: readonly string[];
}

/** A moment of a running VM's disks, which nodes show until it is closed. */
export interface Fleecing {
  /** The guest's file systems were at rest. */
  frozen: boolean;
  /** Why the actions were not done. */
  refused: QmpError | undefined;
  close(): Promise<void>;
}

const fleeceFile = (directory: string, { name }: OpenDisk): string => join(directory, `fleece-${name}`);

/**
 * Holds one moment of all disks, while the guest goes on: what it overwrites is saved before, in images in `directory`.
 * Should they fill up, or be slow, only the moment is lost (qemu's docs/interop/… image fleecing; copy-before-write).
 */
export async function beginFleecing(request: FleecingRequest): Promise<Fleecing> {
  const { qmp, disks, directory, workdir, files } = request;
  const close = async (): Promise<void> => {
    // With qemu all of it has gone.
    if (!(await hasQemuEnded(qmp))) await removeFleecing(qmp);
    for (const disk of disks) remove(fleeceFile(directory, disk));
  };
  try {
    const { running } = await qmp.execute("query-status");
    const filter = running ? NODE.filter : NODE.heldFilter;
    for (const disk of disks) await addFilter(qmp, disk, directory, filter);
    let refused: QmpError | undefined;
    const freezeDisks = async (): Promise<void> => {
      refused = await freezePointInTime(request, running, filter);
    };
    // What would be written in the standstill is written before.
    for (const { name } of disks) await flush(join(workdir, name));
    const frozen = running ? await whileFrozen(qmp, workdir, freezeDisks) : (await freezeDisks(), false);
    for (const name of files) copyFileSync(join(workdir, name), join(directory, name));
    for (const { node } of disks)
      await qmp.execute("blockdev-add", {
        driver: "snapshot-access",
        "node-name": NODE.access + node,
        file: filter + node,
        "read-only": true,
      });
    return { frozen, refused, close };
  } catch (error) {
    await close().catch(() => {
      // qemu has gone, and all this with it.
    });
    throw error;
  }
}

async function addFilter(qmp: QmpClient, disk: OpenDisk, directory: string, filter: string): Promise<void> {
  const path = fleeceFile(directory, disk);
  await createImage(path, { sizeBytes: disk.virtualBytes });
  await qmp.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": NODE.fleece + disk.node,
    file: { driver: "file", filename: path },
    backing: null,
  });
  await qmp.execute("blockdev-add", {
    driver: "copy-before-write",
    "node-name": filter + disk.node,
    file: disk.node,
    target: NODE.fleece + disk.node,
    "on-cbw-error": "break-snapshot",
    "cbw-timeout": 10,
  });
}

/**
 * The point in time: the guest is paused while each of its disks gets the filter. All commands are sent at once, so that
 * qemu resumes the guest also where this process is killed meanwhile; if qemu had not come to that, the next command
 * resumes it (clean-up.ts).
 */
async function freezePointInTime(
  { qmp, disks, actions }: FleecingRequest,
  running: boolean,
  filter: string,
): Promise<QmpError | undefined> {
  const replies = qmp.executeTogether([
    ...(running ? [["stop"] as const] : []),
    ...(actions.length > 0 ? [["transaction", { actions }] as const] : []),
    ...disks.map(({ node }) => ["qom-set", settingDrive(`${node}-dev`, filter + node)] as const),
    ...(running ? [["cont"] as const] : []),
  ]);
  const noted = actions.length > 0 ? replies[running ? 1 : 0] : undefined;
  const [refused, ...others] = await Promise.all([
    noted?.then(
      () => undefined,
      (error: unknown) => {
        if (!(error instanceof QmpError)) throw error;
        return error;
      },
    ),
    ...replies.filter((reply) => reply !== noted),
  ]);
  void others;
  return refused;
}

async function flush(path: string): Promise<void> {
  const fd = openSync(path, "r");
  try {
    await promisify(fdatasync)(fd);
  } finally {
    closeSync(fd);
  }
}

/** Says what a failure means here. */
export async function explainLoss(error: unknown, qmp: QmpClient, directory: string): Promise<unknown> {
  if (error instanceof SignalError) return error;
  if (error instanceof VmError && (await hasQemuEnded(qmp)))
    return new VmError("io", "the guest went off while its disks were copied", {
      cause: error,
      hint: "run the command again: the snapshot is made of what is there now",
    });
  // A job that reads what was lost gets EACCES (block/copy-before-write.c).
  if (!(error instanceof VmError) || error.reason !== "denied") return error;
  return new VmError("cannotCreate", `no space left in ${directory} for copy-before-write data`, {
    cause: error,
    hint: "free some room there, or make the snapshot when the guest writes less; the guest goes on",
  });
}

const hasQemuEnded = (qmp: QmpClient): Promise<boolean> =>
  qmp.execute("query-status").then(
    () => false,
    (error: unknown) => error instanceof QmpDisconnect,
  );
