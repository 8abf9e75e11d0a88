import { hostname } from "node:os";
import { counted, plain } from "../../lib/text.ts";
import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { isQuiet, log } from "../../lib/log.ts";
import { formatTimestamp } from "../../lib/time.ts";
import { byAge, decideRetention, type RetentionCandidate, type Rules } from "../../store/retention.ts";
import type { Context } from "../../vm/context.ts";
import { requireSole } from "../../vm/identity.ts";
import { findHostdir } from "../../vm/find.ts";
import { noVmIn } from "../../store/no-vm.ts";
import { requireOwn } from "../../vm/ownership.ts";
import { isCurrent, isFromHere, isOwn } from "./choose.ts";
import { findHere, listRemote } from "./list.ts";
import { openRepository } from "./restic.ts";
import { shorten, type RemoteSnapshot } from "./tags.ts";

export interface RemotePruneRequest {
  dryRun: boolean;
  json: boolean;
  /** Those without a UUID count that this host pushed from this directory, under its name. */
  byName: boolean;
}

/** More of them would make an argument list too long. */
const IDS_AT_ONCE = 500;

/**
 * Removes this VM's snapshots from the repository that no rule keeps; the newest and protected ones stay. None builds
 * on another there. Only those with the VM's UUID count.
 * @throws 78 in a copy of the VM
 */
export async function pruneRemote(
  context: Context,
  rules: Rules,
  { dryRun, json, byName }: RemotePruneRequest,
): Promise<void> {
  const hostdir = findHostdir(context);
  const here = findHere(context);
  if (!dryRun) {
    requireOwn(context, hostdir, "prune the repository");
    requireSole(context, hostdir, here.uuid, "prune the repository");
  }
  if (here.uuid === undefined && !byName) throw noVmIn(hostdir);
  const repository = await openRepository(context);
  const all = await listRemote(repository);
  const from = { host: hostname(), directory: hostdir };
  const counts = (item: RemoteSnapshot): boolean =>
    isCurrent(here, item) || (byName && isFromHere(here, from, item));
  const own = all.filter(counts);
  const others = all.filter((item) => item.vm === here.name && item.uuid === null && !counts(item));
  if (others.length > 0)
    log.info(
      `not counted, having no UUID: ${others.map(({ id, name }) => `${name} (${shorten(id)})`).join(", ")}; to count those from this host and directory: --by-name`,
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
  // What only those had is still there; restic finds it, and may be interrupted at it.
  if (removed.length > 0)
    await repository.run(["prune"], {
      what: "old snapshots are removed from the repository, but not their data",
    });
  log.success(`removed ${removed.length} of ${own.length} snapshots from the repository`);
}

export interface RemoteVerdict {
  item: RemoteSnapshot;
  keep: boolean;
  reasons: string[];
}

/** Decides as `prune` does here; the newest that is not from the future stays as LAST does. */
export function decideRemote(own: readonly RemoteSnapshot[], rules: Rules, now: Date): RemoteVerdict[] {
  // One name may be there more than once; restic's id is not.
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
 * Has restic look whether the repository is whole.
 * @param deep reads all that is in it
 * @throws 74 when it is not
 */
export async function checkRemote(context: Context, deep: boolean): Promise<void> {
  const repository = await openRepository(context);
  try {
    await repository.run(["check", ...(deep ? ["--read-data"] : [])], {
      what: "the repository is not whole",
    });
  } catch (error) {
    if (error instanceof VmError && error.code === "io")
      throw new VmError("io", error.message, {
        hint: 'restic\'s manual, "Troubleshooting", tells what can be mended',
      });
    throw error;
  }
  const here = findHere(context);
  const own = (await listRemote(repository)).filter((item) => isOwn(here, item));
  if (!isQuiet()) context.print(`good  the repository, with ${counted(own.length, "snapshot")} of this VM\n`);
}
