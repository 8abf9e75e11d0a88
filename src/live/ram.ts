import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { findRam, saveDevices, saveRam, sendDevicesFile } from "../qemu/ram-state.ts";
import type { QmpClient } from "../qmp/client.ts";
import { allocatedBytes, fileError, requireSpace } from "../store/files.ts";
import { PARTIAL } from "../store/layout.ts";

/** Directory in an unfinished snapshot for the state of the machine (qemu/ram-state.ts). */
export const stateDirectory = (staged: string): string => join(staged, `${PARTIAL}state`);

/** Creates the directory, and sends qemu the file in it. To be called before the connection to its monitor. */
export async function prepareState(monitor: string, staged: string): Promise<void> {
  const directory = stateDirectory(staged);
  mkdirSync(directory, { mode: 0o700 });
  await sendDevicesFile(monitor, directory);
}

/**
 * Checks that the state of a running machine can be saved.
 * @param pid of its qemu
 * @returns saves it, while the machine is paused
 * @throws 75 if something of the guest or of its qemu prevents that, 73 without space
 */
export async function openMachine(qmp: QmpClient, pid: number, staged: string): Promise<() => Promise<void>> {
  const [ram, { status, running }, { "blocked-reasons": reasons = [] }] = await Promise.all([
    findRam(qmp, pid),
    qmp.execute("query-status"),
    qmp.execute("query-migrate"),
  ]);
  if (!running) throw cannotSave(`the guest is not running (${status})`);
  if (ram === undefined) throw cannotSave("that of this run is not in a file", `restart the VM: ${commandLine("restart")}`);
  if (reasons[0] !== undefined) throw cannotSave(reasons[0]);
  requireSpace(staged, allocatedBytes(statSync(ram)), "create the snapshot", "snapshots");
  const directory = stateDirectory(staged);
  return async () => {
    try {
      await saveDevices(qmp);
      await saveRam(ram, directory);
    } catch (error) {
      if (error instanceof VmError || (error instanceof Error && "errno" in error))
        throw fileError("cannot save the RAM", error);
      // In qemu's words, such as a device whose state it cannot save.
      throw cannotSave(reasonOf(error));
    }
  };
}

const cannotSave = (reason: string, hint?: string): VmError =>
  new VmError("busy", `cannot save the RAM: ${reason}`, {
    hint: [hint, `back up the disks only: ${commandLine("backup")}`].filter(Boolean).join("\n"),
  });
