import { chmodSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Source } from "../../live/disk-source.ts";
import { cannotSaveRam, machineDirectory, type RunningMachine } from "../../live/ram.ts";
import { ARCH, type ArchFacts } from "../../machine/arch.ts";
import { STATE_FILES } from "../../qemu/state-files.ts";
import { commandLine } from "../../lib/command-line.ts";
import { allocatedBytes, syncFile } from "../../store/files.ts";
import { isSuspended } from "../../store/is-suspended.ts";
import { sumProcessor } from "../../rescue/warm-state.ts";
import { STATE } from "../../store/layout.ts";
import { isExitUnrecorded } from "../../store/mark.ts";
import type { SavedMachine, StoredFile } from "../../store/manifest.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Vm } from "../../vm/find.ts";
import { findQemus } from "../../vm/in-use.ts";

/**
 * The pid of the VM's qemu, whose RAM is to be saved.
 * @throws 75 if the VM is off or was started by hand, or its machine cannot be resumed
 */
export function requirePid({ settings: { QEMUARCH } }: Vm, work: Workdir, live: boolean): number {
  if (!live && isSuspended(work.dir))
    throw cannotSaveRam(
      "the VM is suspended",
      `resume it before: ${commandLine("run", "--detach")} && ${commandLine("backup", "--ram")}`,
    );
  if (!live) throw cannotSaveRam("the VM is off");
  const { writesRam }: ArchFacts = ARCH[QEMUARCH];
  if (writesRam) throw cannotSaveRam(`qemu cannot resume guests of ${QEMUARCH}`);
  if (!isExitUnrecorded(work.mark)) throw cannotSaveRam("the VM was started by hand, with its run script");
  const [qemu] = findQemus(work);
  if (qemu) return qemu.pid;
  throw cannotSaveRam("the process of its qemu is not visible to this user");
}

/** The record of the machine for the manifest. */
export function describeMachine({ mark }: Workdir, { qemu, accel, cd }: RunningMachine): SavedMachine {
  const run = mark.run!;
  return {
    qemu,
    accel,
    processor: sumProcessor(),
    cd: { path: cd ?? null, first: run.cd?.first === true },
    run,
  };
}

/** The saved state of the machine, as sources for `storeGz`. */
export const stateSources = (staged: string): Source[] =>
  [
    [STATE.ram, STATE_FILES.ram],
    [STATE.devices, STATE_FILES.devices],
  ].map(([name, file]) => ({
    name: name!,
    path: join(machineDirectory(staged), file!),
    disk: false,
    base: undefined,
  }));

/** Moves the RAM into the snapshot as it is, so that a machine can map it; durable and read-only. */
export async function storeRam(staged: string): Promise<StoredFile> {
  const path = join(staged, STATE.ram);
  renameSync(join(machineDirectory(staged), STATE_FILES.ram), path);
  await syncFile(path);
  chmodSync(path, 0o400);
  const stats = statSync(path);
  return {
    name: STATE.ram,
    file: STATE.ram,
    bytes: stats.size,
    allocatedBytes: allocatedBytes(stats),
    storedBytes: stats.size,
  };
}
