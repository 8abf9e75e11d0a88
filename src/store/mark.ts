import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { readSmall } from "../lib/read-file.ts";
import { replaceFile, writeNew } from "./files.ts";
import { WORK } from "./layout.ts";
import { formatMark, parseMark } from "./mark-schema.ts";
import { newMark, type Mark, type RunRecord } from "./mark-types.ts";

/** The mark of a directory; undefined if it has none. @throws 78 for one of a newer version */
export const readMark = (workdir: string): Mark | undefined => readMarkFile(join(workdir, WORK.mark));

/** The same, by the file's path. A damaged one is warned of once, and still counts as a mark. */
export function readMarkFile(path: string, warn = true): Mark | undefined {
  let text: string | undefined;
  try {
    text = readSmall(path);
  } catch (error) {
    // A symlink, a pipe or a huge file: not written by this program.
    if (error instanceof VmError) return undefined;
    text = "";
  }
  if (text === undefined) return undefined;
  const mark = parseMark(text, path);
  if (mark.damaged && warn)
    warnOnce(
      `${path} is damaged: the exit reason of the last run is unknown; the next change rewrites the file`,
    );
  return mark;
}

export const writeMark = (workdir: string, mark: Mark): void =>
  writeNew(join(workdir, WORK.mark), formatMark(mark));

/** Updates the mark atomically. */
export function updateMark(workdir: string, change: Partial<Mark>): void {
  const mark = { ...(readMark(workdir) ?? newMark()), ...change };
  replaceFile(join(workdir, WORK.mark), formatMark(mark));
}

/** Updates the record of the current run. */
export function updateRun(workdir: string, change: Partial<RunRecord>): void {
  const run = readMark(workdir)?.run;
  if (run) updateMark(workdir, { run: { ...run, ...change } });
}

/** Is there a run without a recorded end? qemu may still be running. */
export const isExitUnrecorded = (mark: Mark): boolean =>
  mark.run !== undefined && mark.run.ended === undefined;
