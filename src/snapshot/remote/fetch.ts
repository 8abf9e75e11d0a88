import { chmodSync, lchownSync, lstatSync, mkdirSync, renameSync, rmdirSync } from "node:fs";
import { basename, join } from "node:path";
import { beginStep } from "../../lib/activity.ts";
import { commandLine, programLine } from "../../lib/command-line.ts";
import { reasonOf, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { MAX_SMALL_BYTES, lstatOf, readSmall } from "../../lib/read-file.ts";
import { formatSize } from "../../lib/size.ts";
import { isPlainName, plain } from "../../lib/text.ts";
import { formatTimestamp } from "../../lib/time.ts";
import { exec, findProgram } from "../../process/exec.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import {
  fileError,
  listDirectory,
  removeQuietly,
  requireSpace,
  replaceSymlink,
  syncDirectory,
  syncFile,
} from "../../store/files.ts";
import { HOST, isFinalFile, isLargeFile, LAST, PARTIAL, SNAPSHOT, STATE } from "../../store/layout.ts";
import { parseManifest, type Manifest } from "../../store/manifest.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { withVm } from "../../vm/open.ts";
import { findDamage } from "../../store/snapshot-damage.ts";
import { restoreSnapshot, type RestoreRequest } from "../restore.ts";
import { findBackups, makeBackups, validateSnapshotName } from "../../store/snapshots.ts";
import { compareSums, loadSums } from "../../store/checksums.ts";
import { chooseRemote, isOwn, type LocalVm } from "./choose.ts";
import { readLocalVm, listRemote } from "./list.ts";
import { openRepository, type Repository } from "./restic.ts";
import type { RemoteSnapshot } from "./tags.ts";

/**
 * Fetches a snapshot and its parents from the repository, and restores it. Those that exist here already are kept.
 * @throws 66 if the repository does not have it, 73 if another snapshot has its name or without space, 74 if it is
 *   incomplete
 */
export async function restoreRemote(context: Context, request: RestoreRequest): Promise<void> {
  const fetchAndRestore = async (vm: Vm): Promise<void> => {
    const repository = await openRepository(context);
    const here = readLocalVm(context);
    const wanted = chooseRemote(await listRemote(repository), here, request.name);
    warnOfOtherVm(here, wanted);
    await restoreFetched(context, vm, repository, wanted, request);
  };
  await withVm(context, "restore", fetchAndRestore, { lenient: true });
}

export function warnOfOtherVm(here: LocalVm, wanted: RemoteSnapshot): void {
  if (here.uuid !== undefined && wanted.uuid !== null && !isOwn(here, wanted))
    log.warn(`${wanted.name} is of another VM (UUID ${wanted.uuid}): this VM keeps its own UUID`);
}

/** The same with a chosen snapshot, under the VM's lock. */
export async function restoreFetched(
  context: Context,
  vm: Vm,
  repository: Repository,
  wanted: RemoteSnapshot,
  request: RestoreRequest,
): Promise<void> {
  await fetchSnapshot(repository, vm.hostdir, wanted);
  await restoreSnapshot(context, vm, { ...request, name: wanted.name, uuid: wanted.uuid ?? undefined });
}

/** Fetches a snapshot and its parents into the `backups` of a directory. */
export async function fetchSnapshot(
  repository: Repository,
  hostdir: string,
  wanted: RemoteSnapshot,
): Promise<void> {
  requireName(wanted.name);
  const backups = join(hostdir, HOST.backups);
  const what = `cannot fetch ${wanted.name} from the repository`;
  const staged = join(backups, `${PARTIAL}remote`);
  const isFirst = findBackups(hostdir) === undefined;
  try {
    makeBackups(hostdir);
    const bytes = await readRestoreSize(repository, wanted.id, what);
    requireSpace(backups, bytes, `fetch ${wanted.name}`, "snapshots");
    log.info(`fetching ${wanted.name}, made ${formatTimestamp(wanted.made)}: ${formatSize(bytes)}`);
    removeQuietly(staged);
    mkdirSync(staged, { mode: 0o700 });
    await refuseLarge(repository, wanted, what);
    using _step = beginStep(() => `fetch ${plain(wanted.name)} from the repository`);
    await repository.run(["restore", "--target", staged, wanted.id], { what });
    throwIfInterrupted();
    const chain = readChain(staged, wanted.name);
    const further = listDirectory(staged).length - chain.length;
    if (further > 0) log.warn(`ignoring ${further} other entries of that snapshot in the repository`);
    const fresh: string[] = [];
    for (const name of chain) if (await acceptFetched(join(staged, name), name, backups)) fresh.push(name);
    requireChain(staged, chain);
    // Parents first: after a kill no snapshot lacks its parent.
    for (const name of fresh.toReversed()) moveIntoBackups(staged, backups, name);
    if (!lstatOf(join(backups, LAST))) replaceSymlink(join(backups, LAST), wanted.name);
    syncDirectory(backups);
  } catch (error) {
    throw fileError(what, error);
  } finally {
    removeQuietly(staged);
    if (isFirst) removeEmpty(backups);
  }
}

/** Otherwise the directory would look like a VM's, after an error. */
function removeEmpty(backups: string): void {
  try {
    rmdirSync(backups);
  } catch {
    // It has snapshots.
  }
}

/**
 * Checks a snapshot of the repository and its parents, untrusted, where they are read in place: plain names, regular files,
 * small ones where they belong, sizes and parents as their manifests say.
 * @param root directory with one directory for each
 * @returns their names, nearest first
 * @throws 74 if one is missing or invalid, 78 if a newer version wrote it
 */
export function requireValidRemote(root: string, wanted: string): string[] {
  const chain = readChain(root, wanted);
  for (const name of chain)
    for (const file of listDirectory(join(root, name))) requirePlainFile(join(root, name, file), file, name);
  requireChain(root, chain);
  return chain;
}

/** @throws 74 for another kind of file, and for a large one that is no disk, UEFI variables or RAM */
function requirePlainFile(path: string, file: string, name: string): void {
  const stats = lstatSync(path);
  if (!isPlainName(file) || !stats.isFile()) throw invalidSnapshot(name, `${plain(file)} is no regular file`);
  if (!isLargeFile(file) && stats.size > MAX_SMALL_BYTES)
    throw invalidSnapshot(name, `${file} is larger than ${formatSize(MAX_SMALL_BYTES)}`);
}

/** Quick check of a fetched snapshot and its parents. @throws 74 */
function requireChain(staged: string, chain: readonly string[]): void {
  const fetched = new Map(
    chain.map((name) => {
      const dir = join(staged, name);
      return [name, { name, dir, made: new Date(0), manifest: manifestIn(dir) }];
    }),
  );
  const [wanted = ""] = chain;
  const damage = findDamage(fetched.get(wanted)!, (name) => fetched.get(name));
  if (damage !== undefined) throw invalidSnapshot(wanted, damage);
}

function moveIntoBackups(staged: string, backups: string, name: string): void {
  renameSync(join(staged, name), join(backups, name));
  syncDirectory(backups);
}

async function readRestoreSize(repository: Repository, id: string, what: string): Promise<number> {
  const { stdout } = await repository.run(["stats", "--json", "--mode", "restore-size", id], { what });
  return (JSON.parse(stdout) as { total_size?: number }).total_size ?? 0;
}

/** Before fetching: refuses large files other than disks and UEFI variables. @throws 74 */
async function refuseLarge(
  repository: Repository,
  { id, name }: RemoteSnapshot,
  what: string,
): Promise<void> {
  const { stdout } = await repository.run(["ls", "--json", id], { what });
  for (const line of stdout.split("\n")) {
    if (!line.includes('"size"')) continue;
    const { path = "", size = 0 } = JSON.parse(line) as { path?: string; size?: number };
    if (size > MAX_SMALL_BYTES && !isLargeFile(basename(path)))
      throw invalidSnapshot(name, `${path} is larger than ${formatSize(MAX_SMALL_BYTES)}`);
  }
}

const invalidSnapshot = (name: string, reason: string): VmError =>
  new VmError("io", `the repository's ${name} is not a valid snapshot: ${reason}`, {
    hint: `choose another one: ${commandLine("snapshots", "--remote")}`,
  });

/** Limit for untrusted chains. */
const LONGEST_CHAIN = 1000;

/** @throws 74 for an invalid name: it is from the repository, not from the command line */
function requireName(name: string): void {
  try {
    validateSnapshotName(name);
  } catch (error) {
    throw invalidSnapshot(name, reasonOf(error));
  }
}

/**
 * Names of a fetched snapshot and of its parents, from the manifests.
 * @throws 74 if one is missing
 */
function readChain(staged: string, wanted: string): string[] {
  const chain: string[] = [];
  for (let name: string | undefined = wanted; name !== undefined && !chain.includes(name);) {
    requireName(name);
    const dir = join(staged, name);
    if (!lstatOf(dir)?.isDirectory()) throw invalidSnapshot(name, "it is missing");
    if (chain.push(name) > LONGEST_CHAIN) throw invalidSnapshot(wanted, "it has too many parents");
    name = manifestIn(dir)?.parent;
  }
  return chain;
}

/** Undefined for snapshots of the earlier program. @throws 74 if it is damaged, 78 if a newer version wrote it */
function manifestIn(dir: string): Manifest | undefined {
  const text = readSmall(join(dir, SNAPSHOT.manifest));
  return text === undefined ? undefined : parseManifest(text, dir);
}

/**
 * Checks a fetched, untrusted snapshot, and makes the caller its owner.
 * @returns false if it exists here already
 * @throws 73 if another snapshot has its name, 74 if it is invalid
 */
async function acceptFetched(dir: string, name: string, backups: string): Promise<boolean> {
  const [uid, gid] = [process.geteuid!(), process.getegid!()];
  for (const file of listDirectory(dir)) {
    const path = join(dir, file);
    requirePlainFile(path, file, name);
    lchownSync(path, uid, gid);
    if (file === STATE.ram) await digHoles(path);
    chmodSync(path, isFinalFile(file) ? 0o400 : 0o600);
  }
  lchownSync(dir, uid, gid);
  chmodSync(dir, 0o700);
  const here = join(backups, name);
  if (lstatOf(here)) {
    if (hasSameContent(here, dir)) return false;
    throw new VmError("cannotCreate", `another snapshot called ${name} exists here`, {
      hint: `restore into an empty directory: mkdir -m 700 DIR && ${programLine("-d", "DIR", "restore", "--from-remote", "ID")}`,
    });
  }
  await requireMatchingSums(dir, name);
  for (const file of listDirectory(dir)) await syncFile(join(dir, file));
  syncDirectory(dir);
  return true;
}

/** restic before 0.15 writes zeroes for the holes of RAM. Without fallocate (util-linux) they take space. */
async function digHoles(path: string): Promise<void> {
  if (findProgram("fallocate")) await exec(["fallocate", "--dig-holes", "--", path], { anyStatus: true });
}

/** Compares checksums, then ids. A damaged local snapshot counts as different. */
function hasSameContent(here: string, fetched: string): boolean {
  const sums = sumsOf(fetched);
  try {
    if (sums !== undefined && sumsOf(here) === sums) return true;
    const id = manifestIn(fetched)?.id;
    return id !== undefined && manifestIn(here)?.id === id;
  } catch (error) {
    if (error instanceof VmError) return false;
    throw error;
  }
}

const sumsOf = (dir: string): string | undefined => readSmall(join(dir, SNAPSHOT.sums));

/** Snapshots of the earlier program have no checksums. */
async function requireMatchingSums(dir: string, name: string): Promise<void> {
  const parsed = loadSums(dir);
  if (!parsed) return;
  const { sums: listed, problems } = parsed;
  const beside: string[] = [SNAPSHOT.sums, SNAPSHOT.protected, SNAPSHOT.description];
  const unlisted = listDirectory(dir).find((file) => !listed.has(file) && !beside.includes(file));
  if (unlisted !== undefined) throw invalidSnapshot(name, `${SNAPSHOT.sums} does not name ${unlisted}`);
  // The small files of a snapshot of the earlier program are known by their names.
  const manifest = manifestIn(dir);
  const sizes = manifest && new Map(manifest.files.map(({ file, storedBytes }) => [file, storedBytes]));
  const [wrong] = [...problems, ...(await compareSums(dir, sizes && { sizes }))];
  if (wrong !== undefined) throw invalidSnapshot(name, wrong);
}
