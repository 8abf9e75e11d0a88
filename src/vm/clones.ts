import { commandLine, commandLineFor } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf } from "../lib/read-file.ts";
import { forgetClones, readClones, recordClones, type CloneEntry } from "../store/clones.ts";
import { lockVm } from "../store/lock.ts";
import type { CloneRecord } from "../store/mark-types.ts";
import { isSuspended } from "../store/is-suspended.ts";
import { isExitUnrecorded } from "../store/mark.ts";
import { disksOnSnapshots } from "../store/snapshot-dependents.ts";
import { resolveWork, type Work } from "../store/workdir.ts";
import type { Vm } from "./find.ts";
import { readIdentity } from "./identity.ts";
import { isAnyDiskInUse } from "./in-use.ts";
import { foreignDirectory } from "./ownership.ts";

/** A linked clone that may need its snapshot. `missing`: its directory is gone, or holds another VM; it may have been moved. */
export interface InspectedClone extends CloneEntry {
  state: "linked" | "missing";
}

/** The recorded clones of a VM, without those that do not need its snapshots any more. @throws as `readClones` */
export const inspectClones = (hostdir: string): InspectedClone[] =>
  readClones(hostdir).flatMap((entry) => {
    const state = inspectEntry(entry);
    return state === undefined ? [] : [{ ...entry, state }];
  });

function inspectEntry({
  uuid,
  directory,
  snapshot,
  pending,
}: CloneEntry): InspectedClone["state"] | undefined {
  // A clone that was killed while it was made.
  const missing = pending ? undefined : ("missing" as const);
  if (!lstatOf(directory)?.isDirectory()) return missing;
  let work: Work;
  try {
    work = resolveWork(directory);
  } catch {
    // Unknown: it may need it.
    return "linked";
  }
  const found = readIdentity(directory).uuid;
  if (found !== undefined && found !== uuid) return missing;
  // Destroyed, or its working files are gone.
  if (work.state !== "present") return undefined;
  // Unknown without a readable UUID or mark.
  if (found === undefined || work.mark.damaged) return "linked";
  return work.mark.clone?.base?.name === snapshot ? "linked" : undefined;
}

/** What needs each snapshot: `the working disk disk-0.img`, `the clone /srv/web1`. @throws as `readClones` */
export function usersOfSnapshots({ hostdir, work }: Pick<Vm, "hostdir" | "work">): Map<string, string[]> {
  const users = disksOnSnapshots(work);
  for (const { snapshot, directory, state } of inspectClones(hostdir)) {
    const name = state === "missing" ? `the missing clone ${directory}` : `the clone ${directory}`;
    users.set(snapshot, [...(users.get(snapshot) ?? []), name]);
  }
  return users;
}

/**
 * The commands that make a VM's disks independent of snapshots, with the content of now: they fit a running or suspended one.
 * @param line of a command for that VM
 */
export function describeIndependence(work: Work, line: (...words: string[]) => string): string {
  const suspended = work.state === "present" && isSuspended(work.dir);
  const running = work.state === "present" && (isExitUnrecorded(work.mark) || isAnyDiskInUse(work));
  return [
    ...(suspended ? [line("run", "--detach")] : []),
    ...(suspended || running ? [line("stop")] : []),
    line("backup"),
    line("restore", "--copy"),
  ].join(" && ");
}

function describeClone(directory: string): string {
  let work: Work = { state: "none" };
  try {
    work = resolveWork(directory);
  } catch {
    // The commands report it.
  }
  return `make a clone independent: ${describeIndependence(work, (...words) => commandLineFor(directory, ...words))}`;
}

/** A hint has lines for so many clones; all are named in the error. */
const HINTED_CLONES = 3;

/** Hint for snapshots that clones need. Its commands are for the clones: of this VM, `restore` would lose data. */
export function hintForClones(hostdir: string, snapshots: readonly string[]): string[] {
  const clones = inspectClones(hostdir).filter(({ snapshot }) => snapshots.includes(snapshot));
  const missing = clones.filter(({ state }) => state === "missing");
  return [
    ...clones
      .filter(({ state }) => state === "linked")
      .slice(0, HINTED_CLONES)
      .map(({ directory }) => describeClone(directory)),
    ...(missing.length > 0
      ? [
          `record the new place of a clone that was moved: ${commandLineFor("NEWDIR", "backup")}; forget one that does not exist any more: ${commandLine("clone", "--forget", missing[0]!.directory)}`,
        ]
      : []),
  ];
}

/** Is the VM that a clone names there, and this user's? A mark may come from elsewhere, and nothing is written in other directories. */
export function isSource({ directory, uuid: wanted }: CloneRecord): boolean {
  if (!lstatOf(directory)?.isDirectory() || foreignDirectory(directory) !== undefined) return false;
  const { uuid, former } = readIdentity(directory);
  return uuid !== undefined && (uuid === wanted || (wanted !== undefined && former.includes(wanted)));
}

/** For the record of another VM. */
const LOCK_MS = 1000;

/** Removes a linked clone from the record of the VM that it was cloned from. Best effort, as for one that is removed by rm. */
export async function forgetAtSource({
  work,
  settings: { UUID: uuid },
}: Pick<Vm, "work" | "settings">): Promise<void> {
  const clone = work.state === "present" ? work.mark.clone : undefined;
  if (!clone?.base || uuid === "" || !isSource(clone)) return;
  try {
    using _lock = await lockVm(clone.directory, "forget a clone", LOCK_MS);
    forgetClones(clone.directory, new Set([uuid]));
  } catch (error) {
    if (!(error instanceof VmError) && !(error instanceof Error && "errno" in error)) throw error;
  }
}

/**
 * Records a linked clone at the VM that it was cloned from, after a move, or in a copy with a UUID of its own. Best
 * effort: `run` reports a missing base.
 */
export async function keepRecorded({ hostdir, work, settings: { UUID: uuid } }: Vm): Promise<void> {
  const clone = work.state === "present" ? work.mark.clone : undefined;
  if (!clone?.base || uuid === "") return;
  const { directory, base } = clone;
  const isRecorded = (entry: CloneEntry): boolean =>
    entry.uuid === uuid && entry.directory === hostdir && entry.snapshot === base.name && !entry.pending;
  try {
    if (!isSource(clone)) return;
    const entries = readClones(directory);
    if (entries.some(isRecorded)) return;
    // A copy with the UUID of the original, which is still there: it gets one of its own, and is recorded then.
    const other = entries.find((entry) => entry.uuid === uuid && entry.directory !== hostdir);
    if (other && readIdentity(other.directory).uuid === uuid) return;
    using _lock = await lockVm(directory, "record a clone", LOCK_MS);
    recordClones(directory, [{ uuid, directory: hostdir, snapshot: base.name }]);
  } catch (error) {
    if (!(error instanceof VmError) && !(error instanceof Error && "errno" in error)) throw error;
    log.warn(
      `cannot record this linked clone in ${directory}, whose snapshot ${base.name} it needs: ${error.message}`,
    );
  }
}
