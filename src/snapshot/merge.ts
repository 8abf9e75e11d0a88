import { chmodSync, copyFileSync, linkSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { moveAside } from "../lib/shell.ts";
import { VmError } from "../lib/errors.ts";
import { saysNoZstd } from "../lib/program-messages.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { exec, processFailure } from "../process/exec.ts";
import { exchange } from "../process/libc.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { readOwnHeader } from "../qemu/image-header.ts";
import { createImage } from "../qemu/new-image.ts";
import { remove } from "../store/remove.ts";
import { lstatOf } from "../lib/read-file.ts";
import {
  fileError,
  listDirectory,
  removeQuietly,
  requireSpace,
  syncDirectory,
  syncFile,
  writeNew,
} from "../store/files.ts";
import { HOST, PARTIAL, SNAPSHOT, STATE } from "../store/layout.ts";
import type { Manifest, StoredFile } from "../store/manifest.ts";
import { writeSums } from "./make/describe.ts";
import { describeIndependence, hintForClones, usersOfSnapshots } from "../vm/clones.ts";
import type { Context } from "../vm/context.ts";
import { disksOnSnapshots } from "../store/snapshot-dependents.ts";
import type { Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";
import { inspectSnapshots, type SnapshotFacts, type SnapshotInfo } from "../store/snapshot-info.ts";
import { discardSnapshots } from "./remove.ts";
import { lockUnread } from "../store/reading.ts";
import { findDamage } from "../store/snapshot-damage.ts";
import { requireIntact } from "../store/snapshot-intact.ts";
import { contentSum } from "../store/snapshot-parent.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";

/**
 * Removes snapshots that others depend on, after merging their data into those. Each step is atomic.
 * @throws 66 if one does not exist, 75 if it is protected or a working disk depends on it, 73 without space, 74 if it or
 *   one of its children is damaged
 */
export async function mergeSnapshots(context: Context, names: readonly string[]): Promise<void> {
  await withVm(context, "merge snapshots", async (vm) => {
    const chosen = [...new Set(names.map((name) => findSnapshot(vm.hostdir, name).name))];
    for (const name of chosen) refuseNeededByDisks(vm, name);
    for (const name of chosen) {
      const { bytes, heirs } = await mergeSnapshot(context, vm, name);
      log.success(
        `removed ${name}: ${formatSize(bytes)}${heirs.length > 0 ? `; its data is in ${heirs.join(", ")}` : ""}`,
      );
    }
  });
}

/**
 * Merges a snapshot's data into its children, and removes it. After a kill it still exists, or is removed completely.
 * @returns bytes that the removed one occupied, and the names of its children
 * @throws 73 without space, 69 if the filesystem cannot exchange two names, 74 if it or a child is damaged
 */
export async function mergeSnapshot(
  context: Context,
  vm: Vm,
  name: string,
): Promise<{ bytes: number; heirs: string[] }> {
  const all = inspectSnapshots(vm.hostdir);
  const children = all.filter(({ facts }) => facts.parent === name);
  await requireMergeable(all, name, children);
  for (const child of children) await mergeIntoChild(context, vm, child, all);
  const bytes = discardSnapshots(vm.hostdir, inspectSnapshots(vm.hostdir), new Set([name]));
  return { bytes, heirs: children.map(({ facts }) => facts.name) };
}

/**
 * Can the filesystem exchange two names (renameat2(2), RENAME_EXCHANGE)? Tried with two empty directories; if these cannot
 * be created, true.
 */
export function canExchange(hostdir: string): boolean {
  const backups = join(hostdir, HOST.backups);
  const tried = [0, 1].map((index) => join(backups, `${PARTIAL}${process.pid}.${index}`)) as [string, string];
  try {
    for (const path of tried) mkdirSync(path, { mode: 0o700 });
    return exchange(...tried);
  } catch {
    return true;
  } finally {
    for (const path of tried) removeQuietly(path);
  }
}

function refuseNeededByDisks(vm: Vm, name: string): void {
  const { facts } = inspectSnapshots(vm.hostdir).find((item) => item.facts.name === name)!;
  if (facts.protected)
    throw new VmError("busy", `cannot remove snapshots: ${name} is protected`, {
      hint: `nothing was removed; remove the protection: ${commandLine("snapshots", "unprotect", name)}`,
    });
  const users = usersOfSnapshots(vm).get(name);
  if (!users) return;
  const clones = hintForClones(vm.hostdir, [name]);
  const alone = `make the disk standalone: ${describeIndependence(vm.work, commandLine)}`;
  throw new VmError("busy", `cannot remove snapshots: ${users.join(", ")} builds on ${name}`, {
    hint: ["nothing was removed", ...(disksOnSnapshots(vm.work).has(name) ? [alone] : []), ...clones].join(
      "; ",
    ),
  });
}

const find = (all: readonly SnapshotInfo[], name: string): Snapshot | undefined =>
  all.find(({ facts }) => facts.name === name)?.snapshot;

/** Verifies the old checksums, as a merge writes new ones. @throws 74 */
async function requireMergeable(
  all: readonly SnapshotInfo[],
  name: string,
  children: readonly SnapshotInfo[],
): Promise<void> {
  const intact = new Set<Snapshot>();
  // Before copying, and again before a name changes.
  const read = [...children.map(({ snapshot }) => snapshot), ...[find(all, name) ?? []].flat()];
  lockUnread(read, "cannot merge snapshots")[Symbol.dispose]();
  for (const { snapshot, facts } of children) {
    const damage = facts.problem ?? findDamage(snapshot, (wanted) => find(all, wanted));
    if (damage !== undefined) throw cannotMerge(facts.name, damage);
    const both = [find(all, name)!, snapshot].filter((item) => !intact.has(item));
    await requireIntact(both, { cannot: `cannot merge into ${facts.name}`, hint: hintVerify() });
    for (const item of both) intact.add(item);
  }
}

const hintVerify = (): string => `list damaged snapshots: ${commandLine("verify", "--all")}`;

const cannotMerge = (name: string, reason: string): VmError =>
  new VmError("io", `cannot merge into ${name}: ${reason}`, { hint: hintVerify() });

const cannotExchange = (name: string): VmError =>
  new VmError(
    "unavailable",
    `cannot merge into ${name}: the filesystem cannot exchange two names (renameat2)`,
    {
      hint: "remove the snapshots that build on it first, or with it",
    },
  );

/** Replaces a child by one that contains its parent's data, too, with the backing file of its parent. */
async function mergeIntoChild(
  context: Context,
  vm: Vm,
  { snapshot, facts }: SnapshotInfo,
  all: readonly SnapshotInfo[],
): Promise<void> {
  const { name, dir, manifest } = snapshot;
  const parent = all.find((item) => item.facts.name === facts.parent);
  const damage = facts.problem ?? findDamage(snapshot, (wanted) => find(all, wanted));
  if (!manifest || !parent?.snapshot.manifest || damage !== undefined)
    throw cannotMerge(name, damage ?? "its parent is damaged");
  const sum = contentSum(snapshot);
  const { dir: parentDir } = parent.snapshot;
  const below = parent.snapshot.manifest.parent;
  // Before copying, which takes minutes.
  if (!canExchange(vm.hostdir)) throw cannotExchange(name);
  const backups = join(vm.hostdir, HOST.backups);
  const staged = join(backups, `${PARTIAL}${name}`);
  // Besides the result there is the uncompressed image for a while.
  const held = parent.facts.addedBytes + facts.addedBytes - ramBytesOf(parent.facts) - ramBytesOf(facts);
  requireSpace(backups, below === undefined ? held : held * 3, `merge into ${name}`, "snapshots");
  try {
    mkdirSync(staged, { mode: 0o700 });
    const files: StoredFile[] = [];
    for (const file of manifest.files) files.push(await mergeFile(context, dir, staged, file, parentDir));
    for (const file of listDirectory(dir)) {
      const known = manifest.files.some((item) => item.file === file);
      if (known || file === SNAPSHOT.manifest || file === SNAPSHOT.sums || file === SNAPSHOT.protected)
        continue;
      if (!lstatOf(join(dir, file))?.isFile())
        throw new VmError("io", `cannot merge into ${name}: ${file} is no regular file`, {
          hint: moveAside(join(dir, file)),
        });
      copyFileSync(join(dir, file), join(staged, file));
    }
    const { parent: _name, parentId: _id, parentSum: _sum, ...rest } = manifest;
    const { parentId, parentSum } = parent.snapshot.manifest;
    const merged: Manifest = {
      ...rest,
      ...(below === undefined ? {} : { parent: below }),
      ...(parentId === undefined ? {} : { parentId }),
      ...(parentSum === undefined ? {} : { parentSum }),
      // Children and working disks that record its old checksum stay valid.
      ...(sum === undefined ? {} : { formerSums: [...(manifest.formerSums ?? []), sum] }),
      files,
    };
    writeNew(join(staged, SNAPSHOT.manifest), `${JSON.stringify(merged, null, 2)}\n`);
    await writeSums(staged);
    if (facts.protected) writeNew(join(staged, SNAPSHOT.protected), "");
    for (const file of listDirectory(staged)) await syncFile(join(staged, file));
    throwIfInterrupted();
    syncDirectory(staged);
    using _unread = lockUnread([snapshot], `cannot merge into ${name}`);
    if (!exchange(staged, dir)) throw cannotExchange(name);
    syncDirectory(backups);
    remove(staged);
  } catch (error) {
    removeQuietly(staged);
    throw fileError(`cannot merge into ${name}`, error);
  }
}

/** Bytes that are not copied. */
const ramBytesOf = ({ files }: SnapshotFacts): number =>
  files.find(({ name }) => name === STATE.ram)?.allocatedBytes ?? 0;

/** One file of the merged child. */
async function mergeFile(
  context: Context,
  dir: string,
  staged: string,
  stored: StoredFile,
  parentDir: string,
): Promise<StoredFile> {
  const { name, file, virtualBytes = 0 } = stored;
  const from = join(dir, file);
  const to = join(staged, file);
  if (file === STATE.ram) {
    // Neither is ever written to.
    linkSync(from, to);
    return stored;
  }
  if (readOwnHeader(from).backingName === undefined) {
    copyFileSync(from, to);
    return stored;
  }
  const parent = join(parentDir, file);
  const below = readOwnHeader(parent).backingName;
  const meter = context.meter(`merge ${name}`, virtualBytes);
  try {
    // Without a backing file the result contains everything.
    await (below === undefined
      ? compress(from, to)
      : combine([parent, from], to, below, staged, virtualBytes));
  } finally {
    meter.finish();
  }
  chmodSync(to, 0o400);
  return { ...stored, storedBytes: statSync(to).size };
}

/** Stores the differences from `backing`: those of the parent, then those of the child. */
async function combine(
  layers: readonly string[],
  to: string,
  backing: string,
  staged: string,
  sizeBytes: number,
): Promise<void> {
  const changes = join(staged, "changes.qcow2");
  const over = ["-F", "qcow2", "-B", backing];
  await createImage(changes, { sizeBytes, backing });
  // With -B, `qemu-img convert` copies the clusters that are allocated in the image itself.
  for (const layer of layers)
    await exec(["qemu-img", "convert", "-n", "-f", "qcow2", "-O", "qcow2", ...over, layer, changes], {
      what: `cannot copy ${layer}`,
    });
  await compress(changes, to, over);
  remove(changes);
}

/** Compresses like `backup`: with zstd if qemu-img supports it. */
async function compress(from: string, to: string, over: readonly string[] = []): Promise<void> {
  const argv = ["qemu-img", "convert", "-W", "-m", "16", "-c", "-f", "qcow2", "-O", "qcow2", ...over];
  const zstd = await exec([...argv, "-o", "compression_type=zstd", from, to], { anyStatus: true });
  if (zstd.status === 0) return;
  if (!saysNoZstd(zstd.stderr)) throw processFailure(`cannot copy ${from}`, zstd);
  remove(to);
  await exec([...argv, from, to], { what: `cannot copy ${from}` });
}
