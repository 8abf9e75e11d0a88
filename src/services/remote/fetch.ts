import { chmodSync, lchownSync, lstatSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { formatSize } from "../../lib/size.ts";
import { formatTimestamp } from "../../lib/time.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import {
  fileError,
  listDirectory,
  lstatOf,
  readSmall,
  removeQuietly,
  requireRoom,
  swingLink,
  syncDirectory,
  syncFile,
} from "../../store/files.ts";
import { HOST, LAST, PARTIAL, SNAPSHOT } from "../../store/layout.ts";
import type { Context } from "../context.ts";
import { withVm } from "../open.ts";
import { restoreSnapshot, type RestoreRequest } from "../restore.ts";
import { makeBackups, validateSnapshotName } from "../snapshots.ts";
import { compareSums, loadSums } from "../sums.ts";
import { chooseRemote, listRemote, remoteNameOf, type RemoteSnapshot } from "./list.ts";
import { openRepository, type Repository } from "./restic.ts";

/**
 * Fetches a snapshot, and what it builds on, from the repository and restores it. What is here already is left as it
 * is.
 * @throws 66 without such a snapshot there, 73 where another one of that name is here or there is no room, 74 when it
 *   is not whole
 */
export async function restoreRemote(context: Context, request: RestoreRequest): Promise<void> {
  await withVm(context, "restore", async (vm) => {
    const repository = await openRepository(context);
    const wanted = chooseRemote(await listRemote(repository), remoteNameOf(context), request.name);
    await fetchSnapshot(repository, vm.hostdir, wanted);
    await restoreSnapshot(context, vm, { ...request, name: wanted.name });
  });
}

async function fetchSnapshot(repository: Repository, hostdir: string, wanted: RemoteSnapshot): Promise<void> {
  validateSnapshotName(wanted.name);
  const backups = join(hostdir, HOST.backups);
  const what = `cannot fetch ${wanted.name} from the repository`;
  const staged = join(backups, `${PARTIAL}remote`);
  try {
    makeBackups(hostdir);
    const bytes = await sizeOf(repository, wanted.id, what);
    requireRoom(backups, bytes, `fetch ${wanted.name}`);
    log.info(`fetching ${wanted.name}, made ${formatTimestamp(wanted.made)}: ${formatSize(bytes)}`);
    removeQuietly(staged);
    mkdirSync(staged, { mode: 0o700 });
    await repository.run(["restore", "--target", staged, wanted.id], { what });
    throwIfInterrupted();
    const fetched = listDirectory(staged);
    if (!fetched.includes(wanted.name)) throw notOurs(wanted.name, "it is not in it");
    const fresh: string[] = [];
    for (const name of fetched) if (await accept(join(staged, name), name, backups)) fresh.push(name);
    // Those that others build on come first: a kill in between leaves none without what it needs.
    for (const name of fresh.filter((item) => item !== wanted.name)) moveIn(staged, backups, name);
    if (fresh.includes(wanted.name)) moveIn(staged, backups, wanted.name);
    if (!lstatOf(join(backups, LAST))) swingLink(join(backups, LAST), wanted.name);
    syncDirectory(backups);
  } catch (error) {
    throw fileError(what, error);
  } finally {
    removeQuietly(staged);
  }
}

function moveIn(staged: string, backups: string, name: string): void {
  renameSync(join(staged, name), join(backups, name));
  syncDirectory(backups);
}

async function sizeOf(repository: Repository, id: string, what: string): Promise<number> {
  const { stdout } = await repository.run(["stats", "--json", "--mode", "restore-size", id], { what });
  return (JSON.parse(stdout) as { total_size?: number }).total_size ?? 0;
}

const notOurs = (name: string, reason: string): VmError =>
  new VmError("io", `the repository's ${name} is not as a snapshot should be: ${reason}`, {
    hint: "nothing was changed here; try another one: snapshots --remote",
  });

/**
 * Looks at a fetched snapshot as at anybody's data, and makes its files ours.
 * @returns false when the same one is here already
 * @throws 73 when another one of that name is, 74 when it is not what it says
 */
async function accept(dir: string, name: string, backups: string): Promise<boolean> {
  validateSnapshotName(name);
  if (!lstatSync(dir).isDirectory()) throw notOurs(name, "it is no directory");
  const [uid, gid] = [process.geteuid!(), process.getegid!()];
  for (const file of listDirectory(dir)) {
    const path = join(dir, file);
    if (!lstatSync(path).isFile()) throw notOurs(name, `${file} is no plain file`);
    lchownSync(path, uid, gid);
    chmodSync(path, file.endsWith(SNAPSHOT.qcow2) ? 0o400 : 0o600);
  }
  lchownSync(dir, uid, gid);
  chmodSync(dir, 0o700);
  const here = join(backups, name);
  if (lstatOf(here)) {
    if (sumsOf(here) !== undefined && sumsOf(here) === sumsOf(dir)) return false;
    throw new VmError("cannotCreate", `another snapshot called ${name} is here already`, {
      hint: "restore into an empty directory: --hostdir=DIR, of the same name",
    });
  }
  await checkSums(dir, name);
  for (const file of listDirectory(dir)) await syncFile(join(dir, file));
  syncDirectory(dir);
  return true;
}

const sumsOf = (dir: string): string | undefined => readSmall(join(dir, SNAPSHOT.sums));

/** Those of the earlier program have none. */
async function checkSums(dir: string, name: string): Promise<void> {
  const parsed = loadSums(dir);
  if (!parsed) return;
  const { sums: listed, problems } = parsed;
  const beside: string[] = [SNAPSHOT.sums, SNAPSHOT.protected, SNAPSHOT.description];
  const unlisted = listDirectory(dir).find((file) => !listed.has(file) && !beside.includes(file));
  if (unlisted !== undefined) throw notOurs(name, `${SNAPSHOT.sums} does not name ${unlisted}`);
  const [wrong] = [...problems, ...(await compareSums(dir))];
  if (wrong !== undefined) throw notOurs(name, wrong);
}
