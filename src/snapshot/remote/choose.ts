/** Which of a repository's snapshots are a VM's, and which one is meant. Pure. */
import { VmError } from "../../lib/errors.ts";
import { plain } from "../../lib/text.ts";
import { formatTimestamp } from "../../lib/time.ts";
import type { Identity } from "../../store/identity.ts";
import { shorten, type RemoteSnapshot } from "./tags.ts";

/** The VM that looks for its snapshots. */
export interface Here extends Identity {
  /** The name of its directory: all that is known of snapshots without a UUID. */
  name: string;
}

/** Of this VM: made under its UUID, or under one that it had earlier. */
export const isOwn = ({ uuid, former }: Identity, { uuid: theirs }: RemoteSnapshot): boolean =>
  theirs !== null && (theirs === uuid || former.includes(theirs));

/** Of this VM as it is now: retention and `push` count no others, which the original of a copy may still have. */
export const isCurrent = ({ uuid }: Identity, item: RemoteSnapshot): boolean =>
  uuid !== undefined && item.uuid === uuid;

/** Pushed by an older version from this host and directory, under the same directory name: most likely of this VM. */
export const isFromHere = (
  { name }: Pick<Here, "name">,
  at: { host: string; directory: string },
  item: RemoteSnapshot,
): boolean =>
  item.uuid === null && item.vm === name && item.host === at.host && item.directory === at.directory;

/** Snapshots of one VM as far as is known: of one UUID, else from one directory of one host. Oldest first. */
export function groupByVm(all: readonly RemoteSnapshot[]): RemoteSnapshot[][] {
  const groups = new Map<string, RemoteSnapshot[]>();
  for (const item of all) {
    const key = item.uuid ?? JSON.stringify([item.host, item.directory]);
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  return [...groups.values()];
}

/**
 * The snapshot that a name means, or an id as the list shows it; without one the newest.
 * @param all oldest first
 * @param prog for the hints
 * @throws 66 for none, 64 where several could be meant
 */
export function chooseRemote(
  all: readonly RemoteSnapshot[],
  here: Here,
  wanted: string | undefined,
  prog: string,
): RemoteSnapshot {
  const name = wanted === "LAST" ? undefined : wanted;
  const isNamed = (item: RemoteSnapshot): boolean => name === undefined || item.name === name;
  const candidates = here.uuid === undefined ? byName(all, here, isNamed, prog) : byUuid(all, here, name);
  if (name === undefined && candidates.length > 0) return candidates.at(-1)!;
  const found =
    candidates.length > 0
      ? candidates
      : all.filter(({ id }) => /^[0-9a-f]{8,64}$/.test(name ?? "") && id.startsWith(name!));
  if (found.length === 1) return found[0]!;
  if (found.length > 1)
    throw new VmError(
      "usage",
      `the repository has ${found.length} snapshots called ${name}:${listed(found)}`,
      { hint: `take one by its id: ${prog} restore --from-remote ${shorten(found.at(-1)!.id)}` },
    );
  throw noSuchSnapshot(all, here, name, prog);
}

/** Those under the UUID; one that was asked for by name may be from before the UUID was renewed. */
function byUuid(
  all: readonly RemoteSnapshot[],
  here: Here,
  name: string | undefined,
): readonly RemoteSnapshot[] {
  const current = all.filter((item) => isCurrent(here, item));
  if (name === undefined) return current;
  const named = current.filter((item) => item.name === name);
  return named.length > 0 ? named : all.filter((item) => isOwn(here, item) && item.name === name);
}

/** Nothing but the directory's name is known: it must stand for one VM. @throws 64 where it stands for several */
function byName(
  all: readonly RemoteSnapshot[],
  { name: vm }: Here,
  isNamed: (item: RemoteSnapshot) => boolean,
  prog: string,
): readonly RemoteSnapshot[] {
  const candidates = all.filter((item) => item.vm === vm);
  const named = candidates.filter(isNamed);
  const groups = groupByVm(candidates);
  if (named.length === 0 || groups.length <= 1) return named;
  const newest = groups.flatMap((group) => group.findLast(isNamed) ?? []);
  throw new VmError(
    "usage",
    `the repository has snapshots of ${groups.length} VMs whose directory is called ${vm}:${listed(newest)}`,
    { hint: `take one by its id: ${prog} restore --from-remote ${shorten(newest.at(-1)!.id)}` },
  );
}

/** A line each: `1234abcd  S3, 2026-01-02 03:04:05, UUID or host:directory`. */
const listed = (items: readonly RemoteSnapshot[]): string =>
  items
    .map(
      ({ id, name, made, uuid, host, directory }) =>
        `\n  ${shorten(id)}  ${plain(name)}, ${formatTimestamp(made)}, ${uuid === null ? "" : `${uuid}, `}${plain(`${host}:${directory}`)}`,
    )
    .join("");

/** Nothing is taken by guess; what may be meant is listed. */
function noSuchSnapshot(
  all: readonly RemoteSnapshot[],
  { name: vm, uuid }: Here,
  wanted: string | undefined,
  prog: string,
): VmError {
  const of = uuid === undefined ? `of a VM called ${vm}` : `with this VM's UUID (${uuid})`;
  const message =
    wanted === undefined
      ? `the repository has no snapshots ${of}`
      : `the repository has no snapshot ${wanted} ${of}`;
  const like = all.filter((item) => item.vm === vm && (wanted === undefined || item.name === wanted));
  const newest = like.at(-1);
  if (uuid !== undefined && newest)
    return new VmError("noInput", `${message}; of VMs called ${vm} there are:${listed(like.slice(-10))}`, {
      hint: `take one by its id: ${prog} restore --from-remote ${shorten(newest.id)}`,
    });
  const vms = [...new Set(all.map((item) => plain(item.vm)))].join(", ");
  return new VmError("noInput", message, {
    hint: vms
      ? `there are some of: ${vms}; a directory without a VM is known by its name`
      : `${prog} snapshots push NAME copies one there`,
  });
}
