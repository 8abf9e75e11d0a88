import { closeSync, copyFileSync, fdatasync, openSync } from "node:fs";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { SignalError, VmError } from "../lib/errors.ts";
import { ACTIVATION, isSince } from "../qemu/features.ts";
import { createImage } from "../qemu/new-image.ts";
import { settingDrive } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { TransactionAction } from "../qmp/commands.ts";
import { QmpDisconnect, QmpError } from "../qmp/errors.ts";
import { remove } from "../store/remove.ts";
import { recordAllocated } from "./allocated.ts";
import type { OpenDisk } from "./disk-source.ts";
import { removeFleecing, resumeMarked } from "./clean-up.ts";
import { whileFrozen } from "./freeze.ts";
import { addSnapshotNode } from "./lend.ts";
import { NODE } from "./names.ts";

/** Arguments of `beginFleecing`. */
export interface FleecingRequest {
  qmp: QmpClient;
  disks: readonly OpenDisk[];
  workdir: string;
  /** Directory for copy-before-write data. */
  directory: string;
  /** Transaction to execute at the point in time. */
  actions: readonly TransactionAction[];
  /** Paths of small files to copy to `directory` at the point in time. */
  files: readonly string[];
  /** Record the allocated clusters first. */
  full: boolean;
  /** Saves the state of the machine at the point in time; qemu may release its disks for that. Absent: disks only. */
  saveMachine?: (() => Promise<void>) | undefined;
}

/** A point in time of a running VM's disks, readable by access nodes until it is closed. */
export interface Fleecing {
  /** The guest's filesystems were frozen. */
  frozen: boolean;
  /** Error of the transaction, if it failed. */
  refused: QmpError | undefined;
  close(): Promise<void>;
}

const fleeceFile = (directory: string, { name }: OpenDisk): string => join(directory, `fleece-${name}`);

/**
 * Makes one point in time of all disks readable while the guest continues: a copy-before-write filter saves clusters to
 * images in `directory` before the guest overwrites them. If these fill up, or are slow, only the snapshot fails
 * (qapi/block-core.json, BlockdevOptionsCbw).
 */
export async function beginFleecing(request: FleecingRequest): Promise<Fleecing> {
  const { qmp, directory, workdir, full } = request;
  const disks = request.disks.filter(({ idle }) => !idle);
  const close = async (): Promise<void> => {
    // The nodes do not outlive qemu.
    if (!(await hasQemuEnded(qmp))) await removeFleecing(qmp);
    for (const disk of disks) remove(fleeceFile(directory, disk));
  };
  try {
    if (full) await recordAllocated(qmp, disks);
    const { running } = await qmp.execute("query-status");
    const filter = running ? NODE.filter : NODE.heldFilter;
    for (const disk of disks)
      await createImage(fleeceFile(directory, disk), { sizeBytes: disk.virtualBytes });
    const { saveMachine } = request;
    if (!saveMachine) for (const disk of disks) await addFilter(request, disk, filter);
    let refused: QmpError | undefined;
    const freezeDisks = async (): Promise<void> => {
      refused = await (saveMachine
        ? freezeMachine(request, filter, saveMachine)
        : freezePointInTime(request, running, filter));
    };
    // Flushed before, so that less is written while the guest is paused.
    for (const { name } of request.disks) await flush(join(workdir, name));
    // Filesystems that are frozen in the saved RAM would stay so.
    const freezes = running && !saveMachine;
    const frozen = freezes ? await whileFrozen(qmp, workdir, freezeDisks) : (await freezeDisks(), false);
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
      // qemu has exited, and its nodes with it.
    });
    throw error;
  }
}

async function addFilter(
  { qmp, workdir, directory }: FleecingRequest,
  disk: OpenDisk,
  filter: string,
): Promise<void> {
  const filename = fleeceFile(directory, disk);
  await addSnapshotNode(qmp, workdir, {
    driver: "qcow2",
    "node-name": NODE.fleece + disk.node,
    file: { driver: "file", filename },
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
 * The point in time: the guest is paused while each of its disks gets the filter, and small files are copied. Without such
 * files all commands are sent at once, so that qemu resumes the guest even if this process is killed meanwhile; else, or if
 * qemu has not received them all, the next command resumes it (clean-up.ts).
 */
async function freezePointInTime(
  request: FleecingRequest,
  running: boolean,
  filter: string,
): Promise<QmpError | undefined> {
  const { qmp, directory, files } = request;
  if (files.length === 0) return addFilters(request, running, running, filter);
  try {
    const refused = await addFilters(request, running, false, filter);
    for (const path of files) copyFileSync(path, join(directory, basename(path)));
    return refused;
  } finally {
    if (running) await qmp.execute("cont");
  }
}

/**
 * The same with the state of a machine that is running. Its disks are released in between (migration), and a filter would
 * not let them: it comes last. A marker tells the next command that the guest must be resumed.
 */
async function freezeMachine(
  request: FleecingRequest,
  filter: string,
  saveMachine: () => Promise<void>,
): Promise<QmpError | undefined> {
  const { qmp, disks, directory, files } = request;
  await qmp.execute("blockdev-add", {
    driver: "null-co",
    "node-name": NODE.paused,
    size: 0,
    "read-zeroes": true,
  });
  try {
    await qmp.execute("stop");
    const refused = await addFilters({ ...request, disks: [] }, false, false, filter);
    for (const path of files) copyFileSync(path, join(directory, basename(path)));
    await saveMachine();
    if (isSince(qmp.version, ACTIVATION)) await qmp.execute("blockdev-set-active", { active: true });
    for (const disk of disks) if (!disk.idle) await addFilter(request, disk, filter);
    await addFilters({ ...request, actions: [] }, false, false, filter);
    return refused;
  } finally {
    await resumeMarked(qmp);
  }
}

async function addFilters(
  { qmp, disks, actions }: FleecingRequest,
  stop: boolean,
  cont: boolean,
  filter: string,
): Promise<QmpError | undefined> {
  const replies = qmp.executeBatch([
    ...(stop ? [["stop"] as const] : []),
    ...(actions.length > 0 ? [["transaction", { actions }] as const] : []),
    ...disks
      .filter(({ idle }) => !idle)
      .map(({ node }) => ["qom-set", settingDrive(`${node}-dev`, filter + node)] as const),
    ...(cont ? [["cont"] as const] : []),
  ]);
  const transaction = actions.length > 0 ? replies[stop ? 1 : 0] : undefined;
  const [refused, ...others] = await Promise.all([
    transaction?.then(
      () => undefined,
      (error: unknown) => {
        if (!(error instanceof QmpError)) throw error;
        return error;
      },
    ),
    ...replies.filter((reply) => reply !== transaction),
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

/** Translates an error of a copy job: qemu has exited, or there was no space for copy-before-write data. */
export async function explainLoss(error: unknown, qmp: QmpClient, directory: string): Promise<unknown> {
  if (error instanceof SignalError) return error;
  if (error instanceof VmError && (await hasQemuEnded(qmp)))
    return new VmError("io", "cannot copy the disks: qemu exited", {
      cause: error,
      hint: "run the command again to copy the current disks",
    });
  // A job that reads a broken snapshot gets EACCES (block/copy-before-write.c).
  if (!(error instanceof VmError) || error.reason !== "denied") return error;
  return new VmError("cannotCreate", `no space left in ${directory} for copy-before-write data`, {
    cause: error,
    hint: "free some space there, or make the snapshot when the guest writes less; the guest keeps running",
  });
}

const hasQemuEnded = (qmp: QmpClient): Promise<boolean> =>
  qmp.execute("query-status").then(
    () => false,
    (error: unknown) => error instanceof QmpDisconnect,
  );
