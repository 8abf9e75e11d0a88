import { readdirSync, type Stats } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { findUserName, ownedByUs } from "../lib/trust.ts";
import { moveAside } from "../lib/shell.ts";
import { remove } from "./remove.ts";
import { fileKindOf, lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "./files.ts";
import { HOST, isDiskName, RUN_FILES, WORK } from "./layout.ts";
import { updateMark } from "./mark.ts";
import type { Workdir, Work } from "./workdir.ts";
import { isOwned, listOwned } from "./working-files.ts";
import { isDirectoryName, isWorkingFile } from "./working-names.ts";

/** Rewritten by each run or job: a symlink or pipe of such a name is removed, not followed. */
const RENEWED: ReadonlySet<string> = new Set([
  ...RUN_FILES,
  WORK.runScript,
  WORK.rescueScript,
  WORK.consoleLog,
  WORK.rescueConsoleLog,
  WORK.qemuLog,
  WORK.companionLog,
  WORK.eventsIn,
  WORK.eventsOut,
  WORK.spicePassword,
]);

/**
 * Prepares WORKDIR for files that a run or a job is about to write. In HOSTDIR this records them in the mark, so that
 * `destroy` may remove them.
 * @param names working files
 * @param emptied also recreate `.in` and `.out`
 * @throws 73 if a name in HOSTDIR is taken by a file that is not in the mark, 74 if one is not a regular file
 */
export function claimFiles(work: Workdir, names: readonly string[], emptied = false): void {
  if (work.inplace) {
    const taken = names.filter((name) => !isOwned(work.mark, name) && lstatOf(join(work.dir, name)));
    if (taken.length > 0) throw takenError(work.dir, taken);
  }
  for (const name of names) {
    const path = join(work.dir, name);
    const stats = lstatOf(path);
    const directory = isDirectoryName(name);
    if (!stats || ((directory ? stats.isDirectory() : stats.isFile()) && ownedByUs(stats))) continue;
    const renewed = directory ? emptied : RENEWED.has(name);
    if (renewed && !stats.isDirectory()) remove(path);
    else throw kindError(path, stats, directory);
  }
  const { owns } = work.mark;
  if (work.inplace && owns && names.some((name) => !owns.includes(name)))
    updateMark(work.dir, { owns: [...new Set([...owns, ...names])] });
}

function kindError(path: string, stats: Stats, directory: boolean): VmError {
  const reason = (directory ? stats.isDirectory() : stats.isFile())
    ? `it belongs to another user (${findUserName(stats.uid)})`
    : `it is ${fileKindOf(stats)}, not ${directory ? "a directory" : "a regular file"}`;
  return new VmError("io", `cannot use ${path}: ${reason}`, { hint: moveAside(path) });
}

const takenError = (hostdir: string, names: readonly string[]): VmError =>
  new VmError(
    "cannotCreate",
    `cannot keep working files in ${hostdir}: these were not made by this program: ${names.join(", ")}`,
    {
      hint: `adopt them if they are working files of this VM: ${commandLine("adopt")}\nmove them elsewhere if not`,
    },
  );

/**
 * Refuses to create working files in HOSTDIR if unrelated files have such names.
 * @throws 73 naming them
 */
export function refuseTaken(hostdir: string): void {
  const owned = new Set(listOwned(hostdir));
  const taken = listDirectory(hostdir).filter((name) => isWorkingFile(name) && !owned.has(name));
  if (taken.length > 0) throw takenError(hostdir, taken.toSorted());
}

/**
 * Refuses to restore a snapshot beside disks in HOSTDIR that no `.work` refers to (an in-place VM copied without its
 * hidden files): they may be newer than any snapshot.
 * @throws 73 naming them
 */
export function refuseStrayDisks(hostdir: string, work: Work, command: string): void {
  if (work.state === "present") return;
  const disks = readdirSync(hostdir).filter(isDiskName).toSorted();
  if (disks.length === 0) return;
  throw new VmError(
    "cannotCreate",
    `cannot ${command}: ${hostdir} has disks to which no ${HOST.workLink} link refers: ${disks.join(", ")}`,
    {
      hint: `adopt them, as they may be newer than the last snapshot: ${commandLine("adopt")}`,
    },
  );
}
