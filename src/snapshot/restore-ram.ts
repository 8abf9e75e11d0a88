import { closeSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf, openForReading } from "../lib/read-file.ts";
import { saveRam } from "../qemu/ram-state.ts";
import { fileError, syncDirectory, syncFile } from "../store/files.ts";
import { STATE, WORK, workingPath } from "../store/layout.ts";
import type { StoredFile } from "../store/manifest.ts";
import { parseMark } from "../store/mark-schema.ts";
import type { Mark, RunRecord } from "../store/mark-types.ts";
import { ownDisks } from "../store/own-disks.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { identifyDisk, writeDescription } from "../store/suspended.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { findOtherHostOf } from "../vm/saved-machine.ts";
import { damagedSnapshot } from "./restore-images.ts";

/** @param reasons one line each */
export const damagedRam = (snapshot: Snapshot, ...reasons: string[]): VmError => {
  const { message } = damagedSnapshot(snapshot, ...reasons);
  return new VmError("io", message, {
    hint: `working files unchanged; restore its disks only: ${commandLine("restore", "--no-ram", snapshot.name)}`,
  });
};

/** The RAM in a snapshot that is stored as it is, so that a machine can map it; undefined if compressed, or without RAM. */
export const findRamFile = ({ manifest }: Snapshot): StoredFile | undefined =>
  manifest?.files.find(({ file }) => file === STATE.ram);

/** Copies the RAM of a snapshot into new working files: the machine writes to the copy. @throws 73 without space */
export async function copyRam(snapshot: Snapshot, dir: string): Promise<void> {
  const path = join(snapshot.dir, STATE.ram);
  const from = openForReading(path);
  try {
    await saveRam(`/proc/self/fd/${from}`, join(dir, WORK.suspended));
    await syncFile(workingPath(dir, STATE.ram));
  } catch (error) {
    throw fileError(`cannot copy ${path}`, error);
  } finally {
    closeSync(from);
  }
}

/**
 * Describes the state in new working files, which are complete otherwise: the VM is as one that was suspended when the
 * snapshot was made.
 * @param mapped of a linked clone: its RAM stays in the snapshot
 * @returns for the mark
 */
export function writeState(snapshot: Snapshot, dir: string, mapped = false): Pick<Mark, "lastRun" | "run"> {
  const { manifest } = snapshot;
  const { made } = manifest!;
  const { run: _run, ...facts } = manifest!.machine!;
  const directory = join(dir, WORK.suspended);
  const paths = [...ownDisks(dir), ...[WORK.efivars].filter((name) => lstatOf(join(dir, name)))];
  const disks = paths.map((path) => identifyDisk(dir, path));
  writeDescription(directory, { format: 1, since: made, ...facts, disks, ...(mapped && { mapped }) });
  syncDirectory(directory);
  const run = readSavedRun(snapshot);
  return { lastRun: "suspended", ...(run && { run: { ...run, ended: made } }) };
}

/** Can the RAM of a snapshot be resumed on this host? If not, warns that the guest is going to boot. */
export async function isResumable(context: Context, { raw }: Vm, snapshot: Snapshot): Promise<boolean> {
  const { machine, consistency } = snapshot.manifest!;
  const { settings, typed } = readSavedRun(snapshot) ?? {};
  const other = await findOtherHostOf(context, { ...raw, ...typed?.settings, ...settings }, machine!);
  if (other === undefined) return true;
  const how = consistency === "crash-consistent" ? ", as after a power cut" : "";
  log.warn(`the RAM of ${snapshot.name} is left out, as ${other}: the guest boots from its disks${how}`);
  return false;
}

/** Has the VM not been run since it was restored? Its state, if it is suspended, is that of a snapshot. */
export const isUntouched = ({ mark: { created, run } }: Workdir): boolean =>
  run !== undefined && run.started < created;

/** The start of the machine whose RAM is in a snapshot, with what the schema of the mark takes of it. */
export function readSavedRun({ dir, manifest }: Snapshot): RunRecord | undefined {
  const { made: created, machine } = manifest!;
  return parseMark(JSON.stringify({ vm: 1, created, run: machine?.run }), dir).run;
}
