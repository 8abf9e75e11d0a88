import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { beginStep } from "../../lib/activity.ts";
import { commandLine } from "../../lib/command-line.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { formatSize } from "../../lib/size.ts";
import { formatDuration } from "../../lib/time.ts";
import { HOST, SNAPSHOT } from "../../store/layout.ts";
import { backupVm, type BackupRequest, type Made } from "../make/make.ts";
import type { Context } from "../../vm/context.ts";
import { foreignUuid, readIdentity, requireSole } from "../../vm/identity.ts";
import { findHostdir } from "../../vm/find.ts";
import { withVm } from "../../vm/open.ts";
import { requireOwn } from "../../vm/ownership.ts";
import { listSnapshots, findSnapshot, type Snapshot } from "../../store/snapshots.ts";
import { findDamage } from "../../store/snapshot-damage.ts";
import { requireIntact } from "../../store/snapshot-intact.ts";
import { followChain } from "../../store/snapshot-chain.ts";
import { isCurrent, isFromHere } from "./choose.ts";
import { findHere, listRemote } from "./list.ts";
import { openRepository, type Repository } from "./restic.ts";
import { formatUtc, identityTags, TAG, type RemoteSnapshot } from "./tags.ts";

/** restic could not read all: what it has made is not whole. */
const INCOMPLETE = 3;

/**
 * Puts snapshots into the repository, each with all that it builds on: it can be restored from there alone, and what
 * is there already is not sent again. The VM is not locked meanwhile, which may be long: a snapshot that goes while it
 * is read makes this fail, and leaves none in the repository.
 * @param rateLimit bytes per second at most; 0: no limit
 * @throws 66 for one that is not there, 74 for a damaged one or when restic fails
 */
export async function pushSnapshots(
  context: Context,
  names: readonly string[],
  rateLimit = 0,
  repository?: Repository,
): Promise<void> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, "push snapshots");
  // An older VM gets its UUID now.
  const identity = readIdentity(hostdir);
  const uuid =
    identity.uuid ??
    (await withVm(context, "push snapshots", async ({ settings }) => settings.UUID || undefined, {
      lenient: true,
    }));
  requireSole(context, hostdir, uuid, "push snapshots");
  const to = repository ?? (await openRepository(context));
  const here = { ...findHere(context), uuid };
  const all = await listRemote(to);
  const from = { host: hostname(), directory: hostdir };
  const own = all.filter((item) => isCurrent(here, item) || isFromHere(here, from, item));
  for (const name of names) {
    const snapshot = findSnapshot(hostdir, name);
    const other = foreignUuid(identity, snapshot.manifest?.vm);
    if (other !== undefined)
      throw new VmError(
        "io",
        `cannot push ${snapshot.name}: it is a snapshot of another VM (UUID ${other}, not ${uuid})`,
        { hint: "push it from that VM's directory" },
      );
    const there = own.find((item) => isCopyOf(item, snapshot));
    if (!there) {
      await push(to, { hostdir, vm: here.name, uuid, snapshot, latest: own.at(-1), rateLimit });
      continue;
    }
    if (there.uuid === null && uuid !== undefined) await tagSnapshot(to, there, uuid, snapshot);
    log.info(`${snapshot.name} is in the repository already`);
  }
}

/** Gives one that an older version pushed from here the VM's UUID: it is the same snapshot. */
async function tagSnapshot(
  repository: Repository,
  { id }: RemoteSnapshot,
  uuid: string,
  { name, made, manifest }: Snapshot,
): Promise<void> {
  const tags = identityTags(uuid, { made, id: manifest?.id });
  await repository.run(["tag", ...tags.flatMap((tag) => ["--add", tag]), id], {
    what: `cannot mark ${name} in the repository`,
  });
}

/**
 * Makes a snapshot, and brings it into the repository. What is wrong with the settings is told before.
 * @throws 74 when the snapshot is made, but not in the repository
 */
export async function backupAndPush(context: Context, request: BackupRequest): Promise<Made> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, "back up");
  requireSole(context, hostdir, readIdentity(hostdir).uuid, "push snapshots");
  const repository = await openRepository(context);
  const made = await backupVm(context, request);
  try {
    await pushSnapshots(context, [made.name], request.rateLimit, repository);
  } catch (error) {
    if (error instanceof SignalError || !(error instanceof VmError)) throw error;
    const hint = [error.hint, `push it later: ${commandLine("snapshots", "push", made.name)}`];
    throw new VmError("io", `the snapshot is made, but not in the repository: ${error.message}`, {
      cause: error,
      hint: hint.filter(Boolean).join("\n"),
    });
  }
  return made;
}

/** By id where both have one; restic keeps whole seconds of the time of older ones. */
export function isCopyOf({ name, made, snapshotId }: RemoteSnapshot, snapshot: Snapshot): boolean {
  const id = snapshot.manifest?.id;
  if (snapshotId !== null && id !== undefined) return name === snapshot.name && snapshotId === id;
  return name === snapshot.name && Math.abs(made.getTime() - snapshot.made.getTime()) < 1000;
}

interface Push {
  hostdir: string;
  /** The name of the VM's directory. */
  vm: string;
  uuid: string | undefined;
  snapshot: Snapshot;
  /** The newest one there: restic need not read again what it holds. */
  latest: RemoteSnapshot | undefined;
  /** Bytes per second; 0: no limit. */
  rateLimit: number;
}

const hintForIntact = (): string => `see which are intact: ${commandLine("verify", "--all")}`;

async function push(repository: Repository, request: Push): Promise<void> {
  const { hostdir, vm, uuid, snapshot, latest, rateLimit } = request;
  const { name, made, manifest } = snapshot;
  const started = performance.now();
  const cannot = `cannot bring ${name} into the repository`;
  if (snapshot.problem) throw snapshot.problem;
  const known = new Map(listSnapshots(hostdir).map((item) => [item.name, item]));
  const { parents } = followChain(snapshot, (parent) => known.get(parent));
  const problem = findDamage(snapshot, (parent) => known.get(parent));
  if (problem !== undefined) throw new VmError("io", `${cannot}: ${problem}`, { hint: hintForIntact() });
  using _step = beginStep(() => `push ${name} to the repository`);
  await requireIntact([snapshot, ...parents], { cannot, hint: hintForIntact() });
  const isProtected = existsSync(join(snapshot.dir, SNAPSHOT.protected));
  const tags = [
    TAG.ours,
    TAG.vm(vm),
    TAG.snapshot(name),
    ...identityTags(uuid ?? manifest?.vm, { made, id: manifest?.id }),
    ...(isProtected ? [TAG.protected] : []),
  ];
  const words = [
    "backup",
    "--json",
    "--time",
    formatUtc(made),
    ...tags.flatMap((tag) => ["--tag", tag]),
    ...(latest ? ["--parent", latest.id] : []),
    ...(rateLimit > 0 ? ["--limit-upload", String(Math.max(1, Math.round(rateLimit / 1024)))] : []),
    "--",
    name,
    ...parents.map((item) => item.name),
  ];
  const result = await repository.run(words, {
    what: cannot,
    cwd: join(hostdir, HOST.backups),
    good: [INCOMPLETE],
  });
  const { id, sentBytes } = readSummary(result.stdout);
  if (result.status === INCOMPLETE) {
    if (id !== undefined) await repository.run(["forget", id], { what: cannot });
    throw new VmError("io", `${cannot}: it could not be read to its end`, {
      hint: `was it removed meanwhile? see which are intact: ${commandLine("verify", "--all")}`,
    });
  }
  const took = formatDuration((performance.now() - started) / 1000);
  log.success(`${name} is in the repository: ${formatSize(sentBytes)} were new there, ${took}`);
}

/** The last of the lines that `restic backup --json` prints. */
function readSummary(stdout: string): { id: string | undefined; sentBytes: number } {
  const line = stdout.split("\n").findLast((item) => item.includes('"summary"')) ?? "{}";
  const { snapshot_id: id, data_added: sentBytes = 0 } = JSON.parse(line) as {
    snapshot_id?: string;
    data_added?: number;
  };
  return { id, sentBytes };
}
