import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { beginStep } from "../../lib/activity.ts";
import { commandLine } from "../../lib/command-line.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { formatSize } from "../../lib/size.ts";
import { formatDuration } from "../../lib/time.ts";
import { HOST, SNAPSHOT, STATE } from "../../store/layout.ts";
import { backupVm, type BackupRequest, type Made } from "../make/make.ts";
import type { Context } from "../../vm/context.ts";
import { foreignUuid, readIdentity, requireUniqueUuid } from "../../vm/identity.ts";
import { findHostdir } from "../../vm/find.ts";
import { withVm } from "../../vm/open.ts";
import { requireOwn } from "../../vm/ownership.ts";
import { listSnapshots, findSnapshot, type Snapshot } from "../../store/snapshots.ts";
import { findDamage } from "../../store/snapshot-damage.ts";
import { requireIntact } from "../../store/snapshot-intact.ts";
import { followChain } from "../../store/snapshot-chain.ts";
import { isCurrent, isFromHere } from "./choose.ts";
import { readLocalVm, listRemote } from "./list.ts";
import { openRepository, type Repository } from "./restic.ts";
import { formatUtc, identityTags, TAG, type RemoteSnapshot } from "./tags.ts";

/** Exit status of `restic backup`: some files could not be read, the snapshot is incomplete (its manual, "Scripting"). */
const INCOMPLETE = 3;

/**
 * Pushes snapshots to the repository, each with all its parents, so that it can be restored from there alone; restic
 * deduplicates. The VM is not locked meanwhile, as this may take long: if a snapshot is removed during the push, the push
 * fails and leaves nothing in the repository.
 * @param rateLimit bytes per second; 0: no limit
 * @throws 66 if one does not exist, 74 if one is damaged or restic fails
 */
export async function pushSnapshots(
  context: Context,
  names: readonly string[],
  rateLimit = 0,
  repository?: Repository,
): Promise<void> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, "push snapshots");
  // A VM of an older version gets its UUID now.
  const identity = readIdentity(hostdir);
  const uuid =
    identity.uuid ??
    (await withVm(context, "push snapshots", async ({ settings }) => settings.UUID || undefined, {
      lenient: true,
    }));
  requireUniqueUuid(context, hostdir, uuid, "push snapshots");
  const to = repository ?? (await openRepository(context));
  const here = { ...readLocalVm(context), uuid };
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
    const pushed = own.find((item) => isCopyOf(item, snapshot));
    if (!pushed) {
      await push(to, { hostdir, vm: here.name, uuid, snapshot, latest: own.at(-1), rateLimit });
      continue;
    }
    if (pushed.uuid === null && uuid !== undefined) await tagSnapshot(to, pushed, uuid, snapshot);
    log.info(`${snapshot.name} is in the repository already`);
  }
}

/** Tags a snapshot that an older version pushed with the VM's UUID. */
async function tagSnapshot(
  repository: Repository,
  { id }: RemoteSnapshot,
  uuid: string,
  { name, made, manifest }: Snapshot,
): Promise<void> {
  const tags = identityTags(uuid, { made, id: manifest?.id });
  await repository.run(["tag", ...tags.flatMap((tag) => ["--add", tag]), id], {
    what: `cannot tag ${name} in the repository`,
  });
}

/**
 * Creates a snapshot and pushes it to the repository. The repository's settings are checked before.
 * @returns it, also if it was not pushed
 */
export async function backupAndPush(context: Context, request: BackupRequest): Promise<Made> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, "back up");
  requireUniqueUuid(context, hostdir, readIdentity(hostdir).uuid, "push snapshots");
  const repository = await openRepository(context);
  const made = await backupVm(context, request);
  try {
    await pushSnapshots(context, [made.name], request.rateLimit, repository);
  } catch (error) {
    return { ...made, notPushed: explainUnpushed(error, made.name) };
  }
  return made;
}

function explainUnpushed(error: unknown, name: string): unknown {
  if (error instanceof SignalError || !(error instanceof VmError)) return error;
  const hint = [error.hint, `push it later: ${commandLine("snapshots", "push", name)}`];
  return new VmError("io", `the snapshot was created, but not pushed: ${error.message}`, {
    cause: error,
    hint: hint.filter(Boolean).join("\n"),
  });
}

/** Compares ids if both have one, else times: restic stores whole seconds. */
export function isCopyOf({ name, made, snapshotId }: RemoteSnapshot, snapshot: Snapshot): boolean {
  const id = snapshot.manifest?.id;
  if (snapshotId !== null && id !== undefined) return name === snapshot.name && snapshotId === id;
  return name === snapshot.name && Math.abs(made.getTime() - snapshot.made.getTime()) < 1000;
}

interface Push {
  hostdir: string;
  /** Name of the VM's directory. */
  vm: string;
  uuid: string | undefined;
  snapshot: Snapshot;
  /** The newest one in the repository: restic's parent snapshot, whose unchanged files are not read again. */
  latest: RemoteSnapshot | undefined;
  /** Bytes per second; 0: no limit. */
  rateLimit: number;
}

const hintForIntact = (): string => `find the intact ones: ${commandLine("verify", "--all")}`;

async function push(repository: Repository, request: Push): Promise<void> {
  const { hostdir, vm, uuid, snapshot, latest, rateLimit } = request;
  const { name, made, manifest } = snapshot;
  const started = performance.now();
  const cannot = `cannot push ${name} to the repository`;
  if (snapshot.problem) throw snapshot.problem;
  const known = new Map(listSnapshots(hostdir).map((item) => [item.name, item]));
  const { parents } = followChain(snapshot, (parent) => known.get(parent));
  const problem = findDamage(snapshot, (parent) => known.get(parent));
  if (problem !== undefined) throw new VmError("io", `${cannot}: ${problem}`, { hint: hintForIntact() });
  using _step = beginStep(() => `push ${name} to the repository`);
  await requireIntact([snapshot, ...parents], { cannot, hint: hintForIntact() });
  const ram = manifest?.files.find((file) => file.name === STATE.ram);
  const isProtected = existsSync(join(snapshot.dir, SNAPSHOT.protected));
  const tags = [
    TAG.program,
    TAG.vm(vm),
    TAG.snapshot(name),
    ...identityTags(uuid ?? manifest?.vm, { made, id: manifest?.id }),
    ...(isProtected ? [TAG.protected] : []),
    ...(ram ? [TAG.ram(ram.bytes)] : []),
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
    throw new VmError("io", `${cannot}: cannot read all of its files`, {
      hint: `check whether it was removed meanwhile, and which are intact: ${commandLine("verify", "--all")}`,
    });
  }
  const took = formatDuration((performance.now() - started) / 1000);
  log.success(`pushed ${name} to the repository: ${formatSize(sentBytes)} added, ${took}`);
}

/** Parses the summary, the last line of `restic backup --json`. */
function readSummary(stdout: string): { id: string | undefined; sentBytes: number } {
  const line = stdout.split("\n").findLast((item) => item.includes('"summary"')) ?? "{}";
  const { snapshot_id: id, data_added: sentBytes = 0 } = JSON.parse(line) as {
    snapshot_id?: string;
    data_added?: number;
  };
  return { id, sentBytes };
}
