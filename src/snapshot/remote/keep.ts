import { hostname } from "node:os";
import { counted, plain } from "../../lib/text.ts";
import { VmError } from "../../lib/errors.ts";
import { saysRepositoryDamaged } from "../../lib/program-messages.ts";
import { toJson } from "../../lib/json.ts";
import { isQuiet, log } from "../../lib/log.ts";
import { formatTimestamp } from "../../lib/time.ts";
import { byAge, decideRetention, type RetentionCandidate, type Rules } from "../../store/retention.ts";
import type { Context } from "../../vm/context.ts";
import { requireUniqueUuid } from "../../vm/identity.ts";
import { findHostdir } from "../../vm/find.ts";
import { noVmIn } from "../../store/no-vm.ts";
import type { ArrivingRecord } from "../../store/mark-types.ts";
import { resolveWork } from "../../store/workdir.ts";
import { requireOwn } from "../../vm/ownership.ts";
import { isCurrent, isFromHere, isOwn } from "./choose.ts";
import { readLocalVm, listRemote } from "./list.ts";
import { openRepository } from "./restic.ts";
import { shorten, type RemoteSnapshot } from "./tags.ts";

export interface RemotePruneRequest {
  dryRun: boolean;
  json: boolean;
  /** Count snapshots without a UUID that were pushed from this host and directory. */
  byName: boolean;
}

function readCopiedFrom(hostdir: string): ArrivingRecord | undefined {
  const work = resolveWork(hostdir);
  return work.state === "present" ? work.mark.arriving : undefined;
}

/** Limit for an argument list. */
const IDS_AT_ONCE = 500;

/**
 * Removes this VM's snapshots that no rule keeps from the repository, except the newest and protected ones. None depends
 * on another there. Only those with the VM's UUID count.
 * @throws 78 in a copy of the VM
 */
export async function pruneRemote(
  context: Context,
  rules: Rules,
  { dryRun, json, byName }: RemotePruneRequest,
): Promise<void> {
  const hostdir = findHostdir(context);
  const here = readLocalVm(context);
  if (!dryRun) {
    requireOwn(context, hostdir, "prune the repository");
    requireUniqueUuid(context, hostdir, here.uuid, "prune the repository");
  }
  if (here.uuid === undefined && !byName) throw noVmIn(hostdir);
  const repository = await openRepository(context);
  const all = await listRemote(repository);
  const from = { host: hostname(), directory: hostdir };
  // Disks of this VM are being copied from it.
  const copied = readCopiedFrom(hostdir);
  const isCopied = ({ id, snapshotId }: RemoteSnapshot): boolean =>
    copied !== undefined && (id === copied.id || (snapshotId !== null && snapshotId === copied.snapshotId));
  const counts = (item: RemoteSnapshot): boolean =>
    isCurrent(here, item) || (byName && isFromHere(here, from, item));
  const own = all.filter(counts).map((item) => (isCopied(item) ? { ...item, protected: true } : item));
  const others = all.filter((item) => item.vm === here.name && item.uuid === null && !counts(item));
  if (others.length > 0)
    log.info(
      `not counted, as they have no UUID: ${others.map(({ id, name }) => `${name} (${shorten(id)})`).join(", ")}; to count those from this host and directory: --by-name`,
    );
  const verdicts = decideRemote(own, rules, new Date());
  if (json) context.print(toJson(verdicts.map(remoteVerdictForJson)));
  else if (dryRun || !isQuiet()) context.print(verdicts.map(formatRemoteVerdict).join(""));
  if (dryRun) return;
  const removed = verdicts.filter(({ keep }) => !keep).map(({ item }) => item.id);
  for (let at = 0; at < removed.length; at += IDS_AT_ONCE)
    await repository.run(["forget", ...removed.slice(at, at + IDS_AT_ONCE)], {
      what: "cannot remove old snapshots from the repository",
    });
  // restic-prune removes unreferenced data; it can be interrupted.
  if (removed.length > 0)
    await repository.run(["prune"], {
      what: "removed old snapshots from the repository, but not their data",
    });
  log.success(`removed ${removed.length} of ${own.length} snapshots from the repository`);
}

export interface RemoteVerdict {
  item: RemoteSnapshot;
  keep: boolean;
  reasons: string[];
}

/** Applies the rules of `prune`; the newest one without a timestamp in the future is kept, like LAST. */
export function decideRemote(own: readonly RemoteSnapshot[], rules: Rules, now: Date): RemoteVerdict[] {
  // restic's id is unique, the name is not.
  const candidates = own.map((item): RetentionCandidate => ({
    name: item.id,
    made: item.made,
    last: false,
    protected: item.protected,
    damaged: false,
    foreign: false,
    parents: [],
    disks: [],
  }));
  const sorted = candidates.toSorted(byAge);
  const newest = sorted.findLast(({ made }) => made.getTime() <= now.getTime()) ?? sorted.at(-1);
  if (newest) newest.last = true;
  const byId = new Map(own.map((item) => [item.id, item]));
  return decideRetention(candidates, rules, now).map(({ name, keep, reasons, future }) => {
    const item = byId.get(name)!;
    if (future) log.warn(`${item.name} has a timestamp in the future (${formatTimestamp(item.made)})`);
    return { item, keep, reasons: reasons.map((reason) => (reason === "LAST" ? "newest" : reason)) };
  });
}

const remoteVerdictForJson = ({ item: { id, name, made }, keep, reasons }: RemoteVerdict): object => ({
  id,
  name,
  made,
  action: keep ? "keep" : "remove",
  reasons,
});

const formatRemoteVerdict = ({ item, keep, reasons }: RemoteVerdict): string =>
  keep ? `keep ${plain(item.name)}  ${plain(reasons.join(", "))}\n` : `remove ${plain(item.name)}\n`;

/**
 * Checks the repository with `restic check`.
 * @param deep read all data
 * @throws 74 if it is damaged
 */
export async function checkRemote(context: Context, deep: boolean): Promise<void> {
  const repository = await openRepository(context);
  const what = "cannot check the repository";
  const result = await repository.run(["check", ...(deep ? ["--read-data"] : [])], { what, good: [1] });
  if (result.status !== 0) {
    const failure = repository.failure(what, result);
    if (failure.code !== "io" || !saysRepositoryDamaged(result.stderr)) throw failure;
    throw new VmError("io", repository.failure("the repository is damaged", result).message, {
      hint: 'see "Troubleshooting" in restic\'s manual for repairs',
    });
  }
  const here = readLocalVm(context);
  const own = (await listRemote(repository)).filter((item) => isOwn(here, item));
  if (!isQuiet()) context.print(`good  the repository, with ${counted(own.length, "snapshot")} of this VM\n`);
}
