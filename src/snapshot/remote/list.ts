import { commandLine } from "../../lib/command-line.ts";
import { toJson } from "../../lib/json.ts";
import { basename } from "node:path";
import { log } from "../../lib/log.ts";
import { formatTable } from "../../lib/table.ts";
import { counted, plain } from "../../lib/text.ts";
import { formatTimestamp } from "../../lib/time.ts";
import { byAge } from "../../store/retention.ts";
import type { Context } from "../../vm/context.ts";
import { readIdentity } from "../../vm/identity.ts";
import { findHostdir } from "../../vm/find.ts";
import { isOwn, type LocalVm } from "./choose.ts";
import { openRepository, type Repository } from "./restic.ts";
import { parseListed, shorten, TAG, type Listed, type RemoteSnapshot } from "./tags.ts";

/** Identity of the command line's VM. */
export function readLocalVm(context: Context): LocalVm {
  const hostdir = findHostdir(context);
  return { name: basename(hostdir), ...readIdentity(hostdir) };
}

/** Snapshots of all VMs in a repository, oldest first. */
export async function listRemote(repository: Repository): Promise<RemoteSnapshot[]> {
  const { stdout } = await repository.run(["snapshots", "--json", "--tag", TAG.program], {
    what: "cannot list the repository's snapshots",
  });
  return ((JSON.parse(stdout) as Listed[] | null) ?? [])
    .flatMap((item) => parseListed(item) ?? [])
    .toSorted(byAge);
}

/**
 * Prints the snapshots of this VM in the repository, oldest first: those with its UUID; if it has none, or with `byName`,
 * all with its name.
 */
export async function showRemote(
  context: Context,
  { json, byName }: { json: boolean; byName: boolean },
): Promise<void> {
  const here = readLocalVm(context);
  const all = await listRemote(await openRepository(context));
  const named = all.filter((item) => item.vm === here.name);
  const ignored = here.uuid === undefined || byName ? [] : named.filter(({ uuid }) => uuid === null);
  const shown = here.uuid === undefined || byName ? named : all.filter((item) => isOwn(here, item));
  if (json) context.print(toJson(shown));
  else if (shown.length > 0) context.print(formatRemoteList(shown));
  if (ignored.length > 0)
    log.info(
      `not listed, as they have no UUID: ${counted(ignored.length, "older snapshot")} of a VM called ${here.name}; to list them: ${commandLine("snapshots", "--remote", "--by-name")}`,
    );
}

const formatRemoteList = (shown: readonly RemoteSnapshot[]): string =>
  formatTable([
    ["SNAPSHOT", "TIME", "ID", "VM", "HOST", "DIRECTORY", "MARKS"],
    ...shown.map((item) => [
      plain(item.name),
      formatTimestamp(item.made),
      shorten(item.id),
      plain(item.vm),
      plain(item.host),
      plain(item.directory),
      remoteMarksOf(item).join(", "),
    ]),
  ]);

const remoteMarksOf = (item: RemoteSnapshot): string[] => [
  ...(item.ramBytes === null ? [] : ["RAM"]),
  ...(item.protected ? ["protected"] : []),
  ...(item.uuid === null ? ["no UUID"] : []),
];
