import { renameSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { afterCommit, fileError, lstatOf, remove, swingLink, syncDirectory } from "../store/files.ts";
import { HOST, LAST, PARTIAL } from "../store/layout.ts";
import type { Context } from "./context.ts";
import { dependentsOf, parentsOf } from "./dependents.ts";
import { withVm, type Vm } from "./open.ts";
import { knowSnapshots, type Known } from "./snapshot-facts.ts";
import { findSnapshot } from "./snapshots.ts";

/**
 * Removes snapshots: all of them, or none where one has to stay.
 * @throws 66 for one that is not there, 75 when it is protected or others need it
 */
export async function removeSnapshots(context: Context, names: readonly string[]): Promise<void> {
  await withVm(context, "remove snapshots", async (vm) => {
    const chosen = new Set(names.map((name) => findSnapshot(vm.hostdir, name).name));
    const all = knowSnapshots(vm.hostdir);
    refuseNeeded(context, vm, all, chosen);
    const bytes = discardSnapshots(vm.hostdir, all, chosen);
    log.success(`removed ${[...chosen].join(", ")}: ${formatSize(bytes)}`);
  });
}

function refuseNeeded(context: Context, vm: Vm, all: readonly Known[], chosen: ReadonlySet<string>): void {
  const snapshots = all.map(({ snapshot }) => snapshot);
  const reasons = all.flatMap(({ facts: { name, protected: isProtected } }) => {
    if (!chosen.has(name)) return [];
    const needing = dependentsOf(name, snapshots, vm.work).filter((item) => !chosen.has(item));
    return [
      ...(isProtected ? [`${name} is protected`] : []),
      ...(needing.length > 0
        ? [`${needing.join(", ")} ${needing.length > 1 ? "build" : "builds"} on ${name}`]
        : []),
    ];
  });
  if (reasons.length === 0) return;
  throw new VmError("busy", `cannot remove snapshots: ${reasons.join("; ")}`, {
    hint: `nothing was removed; a protected one: ${context.prog} snapshots unprotect NAME; one that others need: remove those first, or with it`,
  });
}

/**
 * Removes snapshots that nothing needs, each in one step; what a kill leaves, the next command clears away.
 * @returns bytes they occupied
 * @throws 73 or 74 when one cannot be removed; those before it are gone
 */
export function discardSnapshots(
  hostdir: string,
  all: readonly Known[],
  chosen: ReadonlySet<string>,
): number {
  const backups = join(hostdir, HOST.backups);
  let bytes = 0;
  try {
    moveLast(backups, all, chosen);
    for (const { snapshot, facts } of childrenFirst(all, chosen)) {
      throwIfInterrupted();
      const aside = join(backups, `${PARTIAL}${snapshot.name}`);
      renameSync(snapshot.dir, aside);
      afterCommit(`the snapshot ${snapshot.name} is removed`, () => {
        // A child must never outlive its parent, not even in a power cut.
        syncDirectory(backups);
        remove(aside);
      });
      bytes += facts.addedBytes;
    }
    syncDirectory(backups);
  } catch (error) {
    throw fileError("cannot remove snapshots", error);
  }
  return bytes;
}

/** LAST leads to the newest that stays, before the one goes that it leads to. */
function moveLast(backups: string, all: readonly Known[], chosen: ReadonlySet<string>): void {
  if (!all.some(({ facts }) => facts.last && chosen.has(facts.name))) return;
  const rest = all.filter(({ facts }) => !chosen.has(facts.name)).map(({ facts }) => facts);
  const next = rest.findLast(({ problem }) => problem === null) ?? rest.at(-1);
  const link = join(backups, LAST);
  if (next) swingLink(link, next.name);
  else if (lstatOf(link)) unlinkSync(link);
  syncDirectory(backups);
}

function childrenFirst(all: readonly Known[], chosen: ReadonlySet<string>): Known[] {
  const children = new Map<string, Known[]>();
  for (const item of all)
    for (const parent of parentsOf(item.snapshot))
      children.set(parent, [...(children.get(parent) ?? []), item]);
  const seen = new Set<Known>();
  const ordered: Known[] = [];
  const visit = (item: Known): void => {
    if (seen.has(item) || !chosen.has(item.facts.name)) return;
    seen.add(item);
    for (const child of children.get(item.facts.name) ?? []) visit(child);
    ordered.push(item);
  };
  for (const item of all) visit(item);
  return ordered;
}
