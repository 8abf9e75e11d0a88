import { chmodSync, lchownSync, lstatSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { beginStep } from "../../lib/activity.ts";
import { commandLine, programName } from "../../lib/command-line.ts";
import { reasonOf, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { MAX_SMALL_BYTES, lstatOf, readSmall } from "../../lib/read-file.ts";
import { formatSize } from "../../lib/size.ts";
import { isPlainName, plain } from "../../lib/text.ts";
import { formatTimestamp } from "../../lib/time.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import {
  fileError,
  listDirectory,
  removeQuietly,
  requireRoom,
  replaceSymlink,
  syncDirectory,
  syncFile,
} from "../../store/files.ts";
import { HOST, LAST, PARTIAL, SNAPSHOT } from "../../store/layout.ts";
import { parseManifest, type Manifest } from "../../store/manifest.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { withVm } from "../../vm/open.ts";
import { findDamage } from "../../store/snapshot-damage.ts";
import { restoreSnapshot, type RestoreRequest } from "../restore.ts";
import { makeBackups, validateSnapshotName } from "../../store/snapshots.ts";
import { compareSums, loadSums } from "../../store/checksums.ts";
import { chooseRemote, isOwn } from "./choose.ts";
import { findHere, listRemote } from "./list.ts";
import { openRepository, type Repository } from "./restic.ts";
import type { RemoteSnapshot } from "./tags.ts";

/**
 * Fetches a snapshot, and what it builds on, from the repository and restores it. What is here already is left as it
 * is.
 * @throws 66 without such a snapshot there, 73 where another one of that name is here or there is no room, 74 when it
 *   is not whole
 */
export async function restoreRemote(context: Context, request: RestoreRequest): Promise<void> {
  const fetchAndRestore = async (vm: Vm): Promise<void> => {
    const repository = await openRepository(context);
    const here = findHere(context);
    const wanted = chooseRemote(await listRemote(repository), here, request.name, context.prog);
    if (here.uuid !== undefined && wanted.uuid !== null && !isOwn(here, wanted))
      log.warn(`${wanted.name} is another VM's (UUID ${wanted.uuid}): this one keeps its own UUID`);
    await fetchSnapshot(repository, vm.hostdir, wanted);
    await restoreSnapshot(context, vm, { ...request, name: wanted.name, uuid: wanted.uuid ?? undefined });
  };
  await withVm(context, "restore", fetchAndRestore, { lenient: true });
}

async function fetchSnapshot(repository: Repository, hostdir: string, wanted: RemoteSnapshot): Promise<void> {
  requireName(wanted.name);
  const backups = join(hostdir, HOST.backups);
  const what = `cannot fetch ${wanted.name} from the repository`;
  const staged = join(backups, `${PARTIAL}remote`);
  try {
    makeBackups(hostdir);
    const bytes = await readRestoreSize(repository, wanted.id, what);
    requireRoom(backups, bytes, `fetch ${wanted.name}`, "snapshots");
    log.info(`fetching ${wanted.name}, made ${formatTimestamp(wanted.made)}: ${formatSize(bytes)}`);
    removeQuietly(staged);
    mkdirSync(staged, { mode: 0o700 });
    await refuseLarge(repository, wanted, what);
    using _step = beginStep(() => `fetch ${plain(wanted.name)} from the repository`);
    await repository.run(["restore", "--target", staged, wanted.id], { what });
    throwIfInterrupted();
    const chain = readChain(staged, wanted.name);
    const further = listDirectory(staged).length - chain.length;
    if (further > 0) log.warn(`ignored ${further} further entries of that snapshot in the repository`);
    const fresh: string[] = [];
    for (const name of chain) if (await accept(join(staged, name), name, backups)) fresh.push(name);
    requireChain(staged, chain);
    // Those that others build on come first: a kill in between leaves none without what it needs.
    for (const name of fresh.toReversed()) moveIn(staged, backups, name);
    if (!lstatOf(join(backups, LAST))) replaceSymlink(join(backups, LAST), wanted.name);
    syncDirectory(backups);
  } catch (error) {
    throw fileError(what, error);
  } finally {
    removeQuietly(staged);
  }
}

/** The quick look at a fetched snapshot with all that it builds on. @throws 74 */
function requireChain(staged: string, chain: readonly string[]): void {
  const fetched = new Map(
    chain.map((name) => {
      const dir = join(staged, name);
      return [name, { name, dir, made: new Date(0), manifest: manifestIn(dir) }];
    }),
  );
  const [wanted = ""] = chain;
  const damage = findDamage(fetched.get(wanted)!, (name) => fetched.get(name));
  if (damage !== undefined) throw notOurs(wanted, damage);
}

function moveIn(staged: string, backups: string, name: string): void {
  renameSync(join(staged, name), join(backups, name));
  syncDirectory(backups);
}

async function readRestoreSize(repository: Repository, id: string, what: string): Promise<number> {
  const { stdout } = await repository.run(["stats", "--json", "--mode", "restore-size", id], { what });
  return (JSON.parse(stdout) as { total_size?: number }).total_size ?? 0;
}

/** Before anything is fetched: all but disks and UEFI variables is small. @throws 74 */
async function refuseLarge(
  repository: Repository,
  { id, name }: RemoteSnapshot,
  what: string,
): Promise<void> {
  const { stdout } = await repository.run(["ls", "--json", id], { what });
  for (const line of stdout.split("\n")) {
    if (!line.includes('"size"')) continue;
    const { path = "", size = 0 } = JSON.parse(line) as { path?: string; size?: number };
    if (size > MAX_SMALL_BYTES && !isLarge(path))
      throw notOurs(name, `${path} is larger than ${formatSize(MAX_SMALL_BYTES)}`);
  }
}

const notOurs = (name: string, reason: string): VmError =>
  new VmError("io", `the repository's ${name} is not as a snapshot should be: ${reason}`, {
    hint: `choose another one: ${commandLine("snapshots", "--remote")}`,
  });

/** Nothing in a repository makes more sense than this; each costs a directory to look at. */
const LONGEST_CHAIN = 1000;

/** @throws 74 for what cannot be a snapshot's name: the repository says it, not the command line */
function requireName(name: string): void {
  try {
    validateSnapshotName(name);
  } catch (error) {
    throw notOurs(name, reasonOf(error));
  }
}

/**
 * The names of a fetched snapshot and of those it builds on, as their manifests say.
 * @throws 74 when one is missing
 */
function readChain(staged: string, wanted: string): string[] {
  const chain: string[] = [];
  for (let name: string | undefined = wanted; name !== undefined && !chain.includes(name);) {
    requireName(name);
    const dir = join(staged, name);
    if (!lstatOf(dir)?.isDirectory()) throw notOurs(name, "it is not in it");
    if (chain.push(name) > LONGEST_CHAIN) throw notOurs(wanted, "it builds on too many others");
    name = manifestIn(dir)?.parent;
  }
  return chain;
}

/** Those of the earlier program have none. @throws 74 for one that is not whole, 78 for a newer version's */
function manifestIn(dir: string): Manifest | undefined {
  const text = readSmall(join(dir, SNAPSHOT.manifest));
  return text === undefined ? undefined : parseManifest(text, dir);
}

/** Disks, and UEFI variables: all other files of a snapshot are small. */
const isLarge = (file: string): boolean => file.endsWith(SNAPSHOT.gz) || file.endsWith(SNAPSHOT.qcow2);

/**
 * Checks a fetched snapshot, which may hold anything, and makes its files the caller's.
 * @returns false when the same one is here already
 * @throws 73 when another one of that name is, 74 when it is not what it says
 */
async function accept(dir: string, name: string, backups: string): Promise<boolean> {
  const [uid, gid] = [process.geteuid!(), process.getegid!()];
  for (const file of listDirectory(dir)) {
    const path = join(dir, file);
    const stats = lstatSync(path);
    if (!isPlainName(file) || !stats.isFile()) throw notOurs(name, `${file} is no plain file`);
    if (!isLarge(file) && stats.size > MAX_SMALL_BYTES)
      throw notOurs(name, `${file} is larger than ${formatSize(MAX_SMALL_BYTES)}`);
    lchownSync(path, uid, gid);
    chmodSync(path, file.endsWith(SNAPSHOT.qcow2) ? 0o400 : 0o600);
  }
  lchownSync(dir, uid, gid);
  chmodSync(dir, 0o700);
  const here = join(backups, name);
  if (lstatOf(here)) {
    if (hasSameContent(here, dir)) return false;
    throw new VmError("cannotCreate", `another snapshot called ${name} is here already`, {
      hint: `restore into an empty directory: mkdir -m 700 DIR && ${programName()} -d DIR restore --from-remote ID`,
    });
  }
  await requireMatchingSums(dir, name);
  for (const file of listDirectory(dir)) await syncFile(join(dir, file));
  syncDirectory(dir);
  return true;
}

/** By their ids, else by their checksums. The one that is here may be damaged: then it is another one. */
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

/** Those of the earlier program have none. */
async function requireMatchingSums(dir: string, name: string): Promise<void> {
  const parsed = loadSums(dir);
  if (!parsed) return;
  const { sums: listed, problems } = parsed;
  const beside: string[] = [SNAPSHOT.sums, SNAPSHOT.protected, SNAPSHOT.description];
  const unlisted = listDirectory(dir).find((file) => !listed.has(file) && !beside.includes(file));
  if (unlisted !== undefined) throw notOurs(name, `${SNAPSHOT.sums} does not name ${unlisted}`);
  const [wrong] = [...problems, ...(await compareSums(dir))];
  if (wrong !== undefined) throw notOurs(name, wrong);
}
