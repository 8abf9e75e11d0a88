/** The VM that a linked clone was made from, after its directory was moved by hand. */
import { dirname, join } from "node:path";
import { log } from "../lib/log.ts";
import { lstatOf } from "../lib/read-file.ts";
import { listDirectories } from "../store/files.ts";
import { HOST } from "../store/layout.ts";
import { updateMark } from "../store/mark.ts";
import type { CloneRecord } from "../store/mark-types.ts";
import { findRecordedPlace } from "../store/places.ts";
import { findMismatch } from "../store/snapshot-parent.ts";
import { findSnapshot } from "../store/snapshots.ts";
import { linkBase } from "../store/working-files.ts";
import { isSource } from "./clones.ts";
import type { Context } from "./context.ts";
import type { Vm } from "./find.ts";

/** More directories than this beside a VM are not VMs. */
const MAX_BESIDE = 2000;

/**
 * Finds it beside its former place, beside the clone, and where a command last used it.
 * @param hostdir of the clone
 * @returns its HOSTDIR; undefined if it is not there, or was not moved
 */
export function findMovedSource(
  hostdir: string,
  clone: CloneRecord,
  cache: string | undefined = undefined,
): string | undefined {
  const { base, uuid } = clone;
  if (!base || uuid === undefined || isSource(clone)) return undefined;
  const recorded = findRecordedPlace(cache, uuid) ?? [];
  const beside = [...new Set([dirname(clone.directory), dirname(hostdir)])].flatMap((parent) =>
    listBeside(parent).map((name) => join(parent, name)),
  );
  return [recorded, beside].flat().find((directory) => {
    try {
      if (!lstatOf(join(directory, HOST.backups, base.name)) || !isSource({ ...clone, directory }))
        return false;
      const snapshot = findSnapshot(directory, base.name);
      return !snapshot.problem && findMismatch(base, snapshot) === undefined;
    } catch {
      // Not a directory of this user, or damaged.
      return false;
    }
  });
}

function listBeside(parent: string): string[] {
  try {
    return listDirectories(parent).slice(0, MAX_BESIDE);
  } catch {
    return [];
  }
}

/** Has a linked clone find its backing files where they are now. Called under its lock. @returns it with its present record */
export function followSource({ cacheDirectory }: Context, vm: Vm): Vm {
  const { hostdir, work } = vm;
  const clone = work.state === "present" ? work.mark.clone : undefined;
  const directory = clone && findMovedSource(hostdir, clone, cacheDirectory);
  if (work.state !== "present" || directory === undefined) return vm;
  const moved = { clone: { ...clone!, directory } };
  linkBase(work.dir, moved);
  updateMark(work.dir, moved);
  log.info(
    `the VM that this one was cloned from was moved to ${directory}: updated its disks' backing files`,
  );
  return { ...vm, work: { ...work, mark: { ...work.mark, ...moved } } };
}
