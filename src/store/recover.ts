import { existsSync, readlinkSync, realpathSync, unlinkSync, type Stats } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { callerUid } from "../lib/trust.ts";
import { listDirectory, lstatOf, remove } from "./files.ts";
import { HOST, PARTIAL, READY, REMOVING } from "./layout.ts";
import { readMark } from "./mark.ts";
import {
  workPrefix,
  UNFINISHED,
  DISCARDED,
  finishReplacing,
  belongsTo,
  rollForward,
  removeDirectory,
  removeInplace,
} from "./working-files.ts";
import type { Work } from "./workdir.ts";
import { isWorkDirectoryName } from "./working-names.ts";

/**
 * Finishes or undoes what a killed command left behind. Called under the VM's lock, before anything else.
 * @param parents directories where this VM's working directories may be
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
  for (const name of listDirectory(hostdir)) if (name.startsWith(PARTIAL)) remove(join(hostdir, name));
  const current = currentTarget(hostdir);
  const prefix = workPrefix(hostdir);
  for (const parent of new Set(
    parents.filter((item) => existsSync(item)).map((item) => realpathSync(item)),
  )) {
    for (const name of listDirectory(parent)) {
      if (!name.startsWith(prefix)) continue;
      const path = join(parent, name);
      const stats = lstatOf(path);
      if (path === current || !isOwnDirectory(stats) || !hasForm(name) || !isOf(path, hostdir)) continue;
      const discarded = name.endsWith(DISCARDED);
      // A destroy that was killed before it could remove the link.
      if (discarded && path.startsWith(`${current}.`) && !lstatOf(current) && belongsTo(path, hostdir)) {
        unlinkSync(join(hostdir, HOST.workLink));
        changed = true;
      }
      if (discarded || name.endsWith(UNFINISHED) || neverUsed(path, hostdir)) removeDirectory(path);
    }
  }
  if (!current || !belongsTo(current, hostdir)) return changed;
  for (const name of listDirectory(current)) if (name.startsWith(PARTIAL)) remove(join(current, name));
  const mark = !changed && work?.state === "present" ? work.mark : readMark(current);
  return finishReplacing(hostdir, current, mark) || changed;
}

const isOwnDirectory = (stats: Stats | undefined): boolean =>
  stats?.isDirectory() === true && stats.uid === callerUid();

/** `vm-XXXXXXXX-XXXXXXXX`, with what says that it is not whole. */
function hasForm(name: string): boolean {
  const base = name.replace(/(\.[0-9a-f]{8})?\.discarded$|\.partial$/, "");
  return isWorkDirectoryName(base);
}

/** Its `.host` names this HOSTDIR; one that is just being made, or the last step of removing, is empty. */
const isOf = (dir: string, hostdir: string): boolean =>
  belongsTo(dir, hostdir) || listDirectory(dir).length === 0;

/** Where `.work` leads, without links on the way, whether anything is there or not. */
function currentTarget(hostdir: string): string {
  const link = join(hostdir, HOST.workLink);
  return lstatOf(link)?.isSymbolicLink() ? canonical(resolve(hostdir, readlinkSync(link))) : "";
}

/** A path without links in its directory part. */
function canonical(path: string): string {
  try {
    return join(realpathSync(dirname(path)), basename(path));
  } catch {
    return path;
  }
}

/** Complete working files that never became the VM's: made, not yet linked, never run. */
function neverUsed(dir: string, hostdir: string): boolean {
  return belongsTo(dir, hostdir) && readMark(dir)?.lastRun === undefined && readMark(dir) !== undefined;
}
