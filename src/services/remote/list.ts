import { plain } from "../../lib/text.ts";
import { basename, dirname } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { formatTable } from "../../lib/table.ts";
import { formatTimestamp } from "../../lib/time.ts";
import type { Context } from "../context.ts";
import { findHostdir } from "../open.ts";
import { openRepository, type Repository } from "./restic.ts";

/** One of our snapshots in a repository; `--json` prints it so. */
export interface RemoteSnapshot {
  /** restic's, in full. */
  id: string;
  /** Of the snapshot here. */
  name: string;
  made: Date;
  /** The VM's, in the repository. */
  vm: string;
  /** Where it was pushed from. */
  host: string;
  directory: string;
  protected: boolean;
}

/** Tags of ours: restic parts them at commas, so what is free text is encoded as in a URL. */
export const TAG = {
  ours: "vm",
  vm: (name: string): string => `vm-name=${encodeURIComponent(name)}`,
  snapshot: (name: string): string => `vm-snapshot=${encodeURIComponent(name)}`,
  protected: "vm-protected",
} as const;

/** The name under which a VM's snapshots are known in the repository: its directory's. */
export const remoteNameOf = (context: Context): string => basename(findHostdir(context));

/** What restic prints; tags it has none of are absent. */
interface Listed {
  id: string;
  time: string;
  hostname: string;
  tags?: string[];
  paths: string[];
}

/**
 * Our snapshots in a repository, oldest first.
 * @param vm only this VM's
 */
export async function listRemote(repository: Repository, vm?: string): Promise<RemoteSnapshot[]> {
  const tags = [TAG.ours, ...(vm === undefined ? [] : [TAG.vm(vm)])].join(",");
  const { stdout } = await repository.run(["snapshots", "--json", "--tag", tags], {
    what: "cannot list the repository's snapshots",
  });
  return ((JSON.parse(stdout) as Listed[] | null) ?? [])
    .flatMap((item) => readListed(item) ?? [])
    .toSorted((a, b) => a.made.getTime() - b.made.getTime());
}

function readListed({ id, time, hostname, tags = [], paths }: Listed): RemoteSnapshot | undefined {
  const valueOf = (begin: string): string | undefined => {
    const tag = tags.find((item) => item.startsWith(begin));
    return tag === undefined ? undefined : decodeTag(tag.slice(begin.length));
  };
  const name = valueOf(TAG.snapshot(""));
  const vm = valueOf(TAG.vm(""));
  if (name === undefined || vm === undefined) return undefined;
  return {
    id,
    name,
    made: new Date(time),
    vm,
    host: hostname,
    // HOSTDIR/backups/NAME
    directory: dirname(dirname(paths[0] ?? "")),
    protected: tags.includes(TAG.protected),
  };
}

function decodeTag(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/**
 * The snapshot that a name means, or an id as the list shows it; without one the newest.
 * @throws 66 for none, 64 for several
 */
export function chooseRemote(
  all: readonly RemoteSnapshot[],
  vm: string,
  wanted: string | undefined,
): RemoteSnapshot {
  const own = all.filter((item) => item.vm === vm);
  if (wanted === undefined || wanted === "LAST") {
    const newest = own.at(-1);
    if (newest) return newest;
    throw notThere(all, `the repository has no snapshots of a VM called ${vm}`);
  }
  const named = own.filter((item) => item.name === wanted);
  const found =
    named.length > 0
      ? named
      : all.filter(({ id }) => /^[0-9a-f]{8,64}$/.test(wanted) && id.startsWith(wanted));
  if (found.length === 1) return found[0]!;
  if (found.length === 0)
    throw notThere(all, `the repository has no snapshot ${wanted} of a VM called ${vm}`);
  throw new VmError("usage", `the repository has ${found.length} snapshots called ${wanted}`, {
    hint: `say which, by its id: ${found.map((item) => `${shorten(item.id)} (${formatTimestamp(item.made)}, ${item.host})`).join(", ")}`,
  });
}

function notThere(all: readonly RemoteSnapshot[], message: string): VmError {
  const vms = [...new Set(all.map((item) => item.vm))].join(", ");
  return new VmError("noInput", message, {
    hint: vms
      ? `it has some of: ${vms}; a VM is known by its directory's name`
      : "snapshots push NAME brings one there",
  });
}

/** As restic shows it. */
export const shorten = (id: string): string => id.slice(0, 8);

/** Prints the snapshots of this VM in the repository, oldest first. */
export async function showRemote(context: Context, json: boolean): Promise<void> {
  const all = await listRemote(await openRepository(context), remoteNameOf(context));
  if (json) return context.print(toJson(all));
  if (all.length > 0)
    context.print(
      formatTable([
        ["NAME", "TIME", "ID", "HOST", "DIRECTORY", "MARKS"],
        ...all.map((item) => [
          plain(item.name),
          formatTimestamp(item.made),
          shorten(item.id),
          plain(item.host),
          plain(item.directory),
          item.protected ? "protected" : "",
        ]),
      ]),
    );
}
