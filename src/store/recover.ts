import { existsSync, readlinkSync, realpathSync, unlinkSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { remove } from "./remove.ts";
import { lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "./files.ts";
import { completeDiskChanges } from "./disk-change.ts";
import { HOST, PARTIAL, READY, REMOVING } from "./layout.ts";
import { readMark, updateMark } from "./mark.ts";
import {
  workPrefix,
  TEMPORARY,
  UNFINISHED,
  DISCARDED,
  finishReplacing,
  belongsTo,
  rollForward,
  removeDirectory,
  removeInplace,
  isOwnWork,
} from "./working-files.ts";
import type { Work } from "./workdir.ts";

/**
 * Completes or undoes what a killed command left behind. Called under the VM's lock, before anything else.
 * @param parents directories that may contain working directories of this VM
 * @param work the working files as they are, where that is known
 * @returns whether `work` may be different now
 */
export function recoverWork(hostdir: string, parents: readonly string[], work?: Work): boolean {
  let changed = false;
  if (lstatOf(join(hostdir, READY))) {
    rollForward(hostdir);
    changed = true;
  }
  if (lstatOf(join(hostdir, REMOVING))) {
    changed = true;
    const link = join(hostdir, HOST.workLink);
    removeInplace(hostdir, lstatOf(link)?.isSymbolicLink() === true && readlinkSync(link) !== ".");
  }
  const current = currentTarget(hostdir);
  if (current && belongsTo(current, hostdir)) completeDiskChanges(hostdir, current);
  for (const name of listDirectory(hostdir)) if (name.startsWith(PARTIAL)) remove(join(hostdir, name));
  const prefix = workPrefix(hostdir);
  for (const parent of new Set(
    parents.filter((item) => existsSync(item)).map((item) => realpathSync(item)),
  )) {
    for (const name of listDirectory(parent)) {
      if (!name.startsWith(prefix)) continue;
      const path = join(parent, name);
      if (path === current || !isOwnWork(path, hostdir)) continue;
      if (name.endsWith(TEMPORARY)) {
        removeTemporary(path);
        continue;
      }
      const discarded = name.endsWith(DISCARDED);
      // A destroy was killed before it could remove the symlink.
      if (discarded && path.startsWith(`${current}.`) && !lstatOf(current) && belongsTo(path, hostdir)) {
        unlinkSync(join(hostdir, HOST.workLink));
        changed = true;
      }
      if (discarded || name.endsWith(UNFINISHED) || neverLinked(path, hostdir, current))
        removeDirectory(path);
    }
  }
  if (!current || !belongsTo(current, hostdir)) return changed;
  for (const name of listDirectory(current)) if (name.startsWith(PARTIAL)) remove(join(current, name));
  const mark = !changed && work?.state === "present" ? work.mark : readMark(current);
  if (mark?.movingTo !== undefined && existsSync(mark.movingTo)) updateMark(current, { movingTo: undefined });
  return finishReplacing(hostdir, current, mark) || changed;
}

/** Loaded on first use: most commands find none. */
const removeTemporary = (path: string): void =>
  (require("./temporary.ts") as typeof import("./temporary.ts")).removeLeftTemporary(path);

/** The target of `.work` with symlinks in its directory resolved, whether it exists or not. */
function currentTarget(hostdir: string): string {
  const link = join(hostdir, HOST.workLink);
  return lstatOf(link)?.isSymbolicLink() ? canonical(resolve(hostdir, readlinkSync(link))) : "";
}

/** A path with symlinks in its directory part resolved. */
function canonical(path: string): string {
  try {
    return join(realpathSync(dirname(path)), basename(path));
  } catch {
    return path;
  }
}

/**
 * Complete working files that were never linked as the VM's, but were to be. Others may be another VM's, which was in this
 * directory before and has been moved.
 */
function neverLinked(dir: string, hostdir: string, current: string): boolean {
  const mark = belongsTo(dir, hostdir) ? readMark(dir) : undefined;
  if (mark === undefined) return false;
  return mark.unlinked === true || (mark.replaces !== undefined && canonical(mark.replaces) === current);
}
