/** Selects the snapshots of a VM in a repository, and one of them by name or id. Pure. */
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { plain } from "../../lib/text.ts";
import { formatTimestamp } from "../../lib/time.ts";
import type { Identity } from "../../store/identity.ts";
import { shorten, type RemoteSnapshot } from "./tags.ts";

/** Identity of the VM on this host. */
export interface LocalVm extends Identity {
  /** Name of its directory: identifies snapshots without a UUID. */
  name: string;
}

/** Of this VM: with its UUID, or with a former one. */
export const isOwn = ({ uuid, former }: Identity, { uuid: remote }: RemoteSnapshot): boolean =>
  remote !== null && (remote === uuid || former.includes(remote));

/** With the current UUID: retention and `push` count no others, as the original of a copy may still need them. */
export const isCurrent = ({ uuid }: Identity, item: RemoteSnapshot): boolean =>
  uuid !== undefined && item.uuid === uuid;

/** Without a UUID (older version), but pushed from the same host and directory: most likely of this VM. */
export const isFromHere = (
  { name }: Pick<LocalVm, "name">,
  at: { host: string; directory: string },
  item: RemoteSnapshot,
): boolean =>
  item.uuid === null && item.vm === name && item.host === at.host && item.directory === at.directory;

/** Groups snapshots by UUID, those without one by host and directory. Oldest first. */
export function groupByVm(all: readonly RemoteSnapshot[]): RemoteSnapshot[][] {
  const groups = new Map<string, RemoteSnapshot[]>();
  for (const item of all) {
    const key = item.uuid ?? JSON.stringify([item.host, item.directory]);
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  return [...groups.values()];
}

/**
 * Finds a snapshot by name or (abbreviated) id; without either the newest.
 * @param all oldest first
 * @param prog for the hints
 * @throws 66 if there is none, 64 if several match
 */
export function chooseRemote(
  all: readonly RemoteSnapshot[],
  here: LocalVm,
  wanted: string | undefined,
): RemoteSnapshot {
  const name = wanted === "LAST" ? undefined : wanted;
  const isNamed = (item: RemoteSnapshot): boolean => name === undefined || item.name === name;
  const candidates = here.uuid === undefined ? byName(all, here, isNamed) : byUuid(all, here, name);
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
      { hint: `choose one by id: ${commandLine("restore", "--from-remote", shorten(found.at(-1)!.id))}` },
    );
  throw noSuchSnapshot(all, here, name);
}

/** Those with the current UUID; by name also those with a former one. */
function byUuid(
  all: readonly RemoteSnapshot[],
  here: LocalVm,
  name: string | undefined,
): readonly RemoteSnapshot[] {
  const current = all.filter((item) => isCurrent(here, item));
  if (name === undefined) return current;
  const named = current.filter((item) => item.name === name);
  return named.length > 0 ? named : all.filter((item) => isOwn(here, item) && item.name === name);
}

/** By the directory's name alone. @throws 64 if several VMs have it */
function byName(
  all: readonly RemoteSnapshot[],
  { name: vm }: LocalVm,
  isNamed: (item: RemoteSnapshot) => boolean,
): readonly RemoteSnapshot[] {
  const candidates = all.filter((item) => item.vm === vm);
  const named = candidates.filter(isNamed);
  const groups = groupByVm(candidates);
  if (named.length === 0 || groups.length <= 1) return named;
  const newest = groups.flatMap((group) => group.findLast(isNamed) ?? []);
  throw new VmError(
    "usage",
    `the repository has snapshots of ${groups.length} VMs whose directory is called ${vm}:${listed(newest)}`,
    { hint: `choose one by id: ${commandLine("restore", "--from-remote", shorten(newest.at(-1)!.id))}` },
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

/** The error lists similar snapshots. */
function noSuchSnapshot(
  all: readonly RemoteSnapshot[],
  { name: vm, uuid }: LocalVm,
  wanted: string | undefined,
): VmError {
  const of = uuid === undefined ? `of a VM called ${vm}` : `with this VM's UUID (${uuid})`;
  const message =
    wanted === undefined
      ? `the repository has no snapshots ${of}`
      : `the repository has no snapshot ${wanted} ${of}`;
  const like = all.filter((item) => item.vm === vm && (wanted === undefined || item.name === wanted));
  const newest = like.at(-1);
  if (uuid !== undefined && newest)
    return new VmError("noInput", `${message}; snapshots of VMs called ${vm}:${listed(like.slice(-10))}`, {
      hint: `choose one by id: ${commandLine("restore", "--from-remote", shorten(newest.id))}`,
    });
  const vms = [...new Set(all.map((item) => plain(item.vm)))].join(", ");
  const latest = all.at(-1);
  return new VmError("noInput", message, {
    hint: latest
      ? `it has snapshots of: ${vms}; for a directory without a VM its name must match\nor choose one by id, such as the newest: ${commandLine("restore", "--from-remote", shorten(latest.id))}`
      : `push one: ${commandLine("snapshots", "push", "NAME")}`,
  });
}
