import { renameSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log, snapshotName } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { remove } from "../store/remove.ts";
import { lstatOf } from "../lib/read-file.ts";
import { lockUnread } from "../store/reading.ts";
import { fileError, removeQuietly, replaceSymlink, syncDirectory } from "../store/files.ts";
import { HOST, LAST, PARTIAL } from "../store/layout.ts";
import { describeIndependence, hintForClones, usersOfSnapshots } from "../vm/clones.ts";
import type { Context } from "../vm/context.ts";
import { dependentsOf, disksOnSnapshots, parentsOf } from "../store/snapshot-dependents.ts";
import type { Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";
import { inspectSnapshots, type SnapshotInfo } from "../store/snapshot-info.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";

/**
 * Removes snapshots: all of them, or none if one is needed.
 * @throws 66 if one does not exist, 75 if one is protected or others depend on it
 */
export async function removeSnapshots(context: Context, names: readonly string[]): Promise<void> {
  await withVm(context, "remove snapshots", async (vm) => {
    const chosen = new Set(names.map((name) => findSnapshot(vm.hostdir, name).name));
    const all = inspectSnapshots(vm.hostdir);
    refuseNeeded(vm, all, chosen);
    const bytes = discardSnapshots(vm.hostdir, all, chosen);
    log.success(`removed ${[...chosen].map(snapshotName).join(", ")}: ${formatSize(bytes)}`);
    if (all.every(({ snapshot: { name } }) => chosen.has(name)))
      log.warn(
        vm.work.state === "present"
          ? "this VM has no snapshots left"
          : "this VM has no working files: the only copy of its disks was removed",
      );
  });
}

function refuseNeeded(vm: Vm, all: readonly SnapshotInfo[], chosen: ReadonlySet<string>): void {
  const snapshots = all.map(({ snapshot }) => snapshot);
  const disks = disksOnSnapshots(vm.work);
  const users = usersOfSnapshots(vm);
  const needed = all
    .filter(({ facts }) => chosen.has(facts.name))
    .map(({ facts: { name, protected: isProtected } }) => ({
      name,
      isProtected,
      dependents: dependentsOf(name, snapshots, users).filter((item) => !chosen.has(item)),
    }));
  const reasons = needed.flatMap(({ name, isProtected, dependents }) => [
    ...(isProtected ? [`${name} is protected`] : []),
    ...(dependents.length > 0
      ? [`${dependents.join(", ")} ${dependents.length > 1 ? "build" : "builds"} on ${name}`]
      : []),
  ]);
  if (reasons.length === 0) return;
  const names = (has: (item: (typeof needed)[number]) => boolean): string[] =>
    needed.filter(has).map(({ name }) => name);
  const guarded = names(({ isProtected }) => isProtected);
  const parents = names(({ dependents }) =>
    dependents.some((item) => snapshots.some(({ name }) => name === item)),
  );
  const independent = describeIndependence(vm.work, commandLine);
  throw new VmError("busy", `cannot remove snapshots: ${reasons.join("; ")}; nothing was removed`, {
    hint: [
      ...(guarded.length > 0 ? [`unprotect: ${commandLine("snapshots", "unprotect", ...guarded)}`] : []),
      ...(parents.length > 0
        ? [`merge into the dependent ones: ${commandLine("snapshots", "rm", "--merge", ...parents)}`]
        : []),
      ...(names(({ name }) => disks.has(name)).length > 0
        ? [`make the working disks independent and keep their changes: ${independent}`]
        : []),
      ...hintForClones(vm.hostdir, [...chosen]),
    ].join("\n"),
  });
}

/**
 * Removes snapshots that nothing depends on. Each is renamed first; the next command cleans up after a kill.
 * @returns bytes they occupied
 * @throws 73 or 74 if one cannot be removed; others may be removed already; 75 before that if one is being read
 */
export function discardSnapshots(
  hostdir: string,
  all: readonly SnapshotInfo[],
  chosen: ReadonlySet<string>,
): number {
  const backups = join(hostdir, HOST.backups);
  const asides: string[] = [];
  const places = all.flatMap(({ snapshot }) => (chosen.has(snapshot.name) ? [snapshot] : []));
  try {
    using _unread = lockUnread(places, "cannot remove snapshots");
    moveLast(backups, all, chosen);
    // Children first, even after a power cut.
    for (const level of childrenFirst(all, chosen)) {
      for (const { name, dir } of level) {
        const aside = join(backups, `${PARTIAL}${name}`);
        renameSync(dir, aside);
        asides.push(aside);
      }
      syncDirectory(backups);
    }
    for (const aside of asides) remove(aside);
  } catch (error) {
    throw fileError(`cannot remove snapshots (${asides.length} of ${chosen.size} removed)`, error);
  } finally {
    for (const aside of asides) removeQuietly(aside);
  }
  return all.reduce((sum, { facts }) => sum + (chosen.has(facts.name) ? facts.addedBytes : 0), 0);
}

/** Points LAST to the newest remaining snapshot, before its target is removed. */
function moveLast(backups: string, all: readonly SnapshotInfo[], chosen: ReadonlySet<string>): void {
  if (!all.some(({ facts }) => facts.last && chosen.has(facts.name))) return;
  const rest = all.filter(({ facts }) => !chosen.has(facts.name)).map(({ facts }) => facts);
  const good = rest.filter(({ problem }) => problem === null);
  // One with a timestamp in the future is not necessarily the newest.
  const next = good.findLast(({ made }) => made.getTime() <= Date.now()) ?? good.at(-1) ?? rest.at(-1);
  const link = join(backups, LAST);
  if (next) replaceSymlink(link, next.name);
  else if (lstatOf(link)) unlinkSync(link);
  syncDirectory(backups);
}

/** Groups of snapshots: first those without children, then those whose children are in earlier groups. */
function childrenFirst(all: readonly SnapshotInfo[], chosen: ReadonlySet<string>): Snapshot[][] {
  const wanted = all.map(({ snapshot }) => snapshot).filter(({ name }) => chosen.has(name));
  const byName = new Map(wanted.map((item) => [item.name, item]));
  const height = new Map<Snapshot, number>(wanted.map((item) => [item, 0]));
  for (const item of wanted) {
    const path = new Set([item]);
    // Raises each one's ancestors; stops at those already high enough, and at cycles.
    for (let child = item; ;) {
      const parent = byName.get(parentsOf(child)[0] ?? "");
      if (!parent || path.has(parent) || height.get(parent)! > height.get(child)!) break;
      height.set(parent, height.get(child)! + 1);
      path.add(parent);
      child = parent;
    }
  }
  return [...Map.groupBy(wanted, (item) => height.get(item)!)]
    .toSorted((a, b) => a[0] - b[0])
    .map(([, level]) => level);
}
