import { mkdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import type { Machine } from "../machine/types.ts";
import { readArgv } from "../process/holders.ts";
import { findRam, saveDevices, saveRam, sendDevicesFile } from "../qemu/ram-state.ts";
import type { QmpClient } from "../qmp/client.ts";
import { allocatedBytes, fileError, requireSpace } from "../store/files.ts";
import { PARTIAL } from "../store/layout.ts";
import { MAPPED_RAM, mapsSnapshot } from "../store/suspended.ts";
import { findInsertedCd, listAttached } from "./attached.ts";

/** Directory in an unfinished snapshot for the state of the machine (qemu/ram-state.ts). */
export const machineDirectory = (staged: string): string => join(staged, `${PARTIAL}state`);

/** A running machine whose state can be saved. */
export interface RunningMachine {
  /** Version of its qemu. */
  qemu: string;
  accel: Machine["accel"];
  /** Path of the CD in its drive. */
  cd: string | undefined;
  /** Saves the state, while the machine is paused. */
  save(): Promise<void>;
}

/** Creates the directory, and sends qemu the file in it. To be called before the connection to its monitor. */
export async function prepareState(monitor: string, staged: string): Promise<void> {
  const directory = machineDirectory(staged);
  mkdirSync(directory, { mode: 0o700 });
  await sendDevicesFile(monitor, directory);
}

/**
 * Checks that the state of a running machine can be saved.
 * @param pid of its qemu
 * @throws 75 if something of the guest or of its qemu prevents that, 73 without space
 */
export async function openMachine(
  qmp: QmpClient,
  pid: number,
  workdir: string,
  staged: string,
): Promise<RunningMachine> {
  const { status, running } = await qmp.execute("query-status");
  if (!running) throw cannotSaveRam(`the guest is not running (${status})`);
  const ram = await findRam(qmp, pid);
  if (ram === undefined)
    throw mapsSnapshot(workdir)
      ? cannotSaveRam(MAPPED_RAM, `restart it: ${commandLine("restart")}`)
      : cannotSaveRam(
          "it is not shared memory",
          `have it so from the next start on: ${commandLine("set", "SHARED_RAM=on")} && ${commandLine("restart")}`,
        );
  const [{ "blocked-reasons": blocked = [] }, attached, cd] = await Promise.all([
    qmp.execute("query-migrate"),
    listAttached(qmp),
    findInsertedCd(qmp),
  ]);
  if (blocked[0] !== undefined)
    throw cannotSaveRam(
      blocked[0],
      /VirtFS|9p/i.test(blocked[0]) ? "unmount the shared folders in the guest: umount -a -t 9p" : undefined,
    );
  const other = attached.find(({ path }) => dirname(path) !== workdir);
  if (other)
    throw cannotSaveRam(
      `the guest has a disk that is not in the snapshot: ${other.path}`,
      `run the VM without it, or detach it: ${commandLine("disk", "-h")}`,
    );
  requireSpace(staged, allocatedBytes(statSync(ram)), "create the snapshot", "snapshots");
  const save = async (): Promise<void> => {
    try {
      await saveDevices(qmp);
      await saveRam(ram, machineDirectory(staged));
    } catch (error) {
      if (error instanceof VmError || (error instanceof Error && "errno" in error))
        throw fileError("cannot save the RAM", error);
      // In qemu's words, such as a device whose state it cannot save.
      throw cannotSaveRam(reasonOf(error));
    }
  };
  const accel = readArgv(pid).includes("kvm") ? "kvm" : "tcg";
  return { qemu: qmp.version, accel, cd, save };
}

/** The guest keeps running, and no snapshot is created. */
export const cannotSaveRam = (reason: string, hint?: string): VmError =>
  new VmError("busy", `cannot save the RAM: ${reason}`, {
    hint: [hint, `or back up the disks only: ${commandLine("backup")}`].filter(Boolean).join("\n"),
  });
