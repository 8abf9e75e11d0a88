/** Tags of a VM's snapshot in a restic repository: written, and read back as untrusted data. */
import { dirname } from "node:path";
import { isUuid } from "../../lib/uuid.ts";
import { isSnapshotId } from "../../store/manifest.ts";

/** One of our snapshots in a repository; `--json` prints it so. */
export interface RemoteSnapshot {
  /** restic's, in full. */
  id: string;
  /** Of the snapshot here. */
  name: string;
  made: Date;
  /** The name of the VM's directory. */
  vm: string;
  /** The VM's UUID, and the snapshot's id from its manifest; null for those of older versions. */
  uuid: string | null;
  snapshotId: string | null;
  /** Where it was pushed from. */
  host: string;
  directory: string;
  protected: boolean;
}

/** restic separates tags at commas, so free text is encoded as in a URL. */
export const TAG = {
  ours: "vm",
  vm: (name: string): string => `vm-name=${encodeURIComponent(name)}`,
  snapshot: (name: string): string => `vm-snapshot=${encodeURIComponent(name)}`,
  uuid: (uuid: string): string => `vm-uuid=${uuid}`,
  snapshotId: (id: string): string => `vm-id=${id}`,
  /** ISO 8601, UTC, with milliseconds: restic itself keeps whole seconds only. */
  made: (time: string): string => `vm-made=${time}`,
  protected: "vm-protected",
} as const;

/** What `restic snapshots --json` prints of each; what is empty there is absent or null. */
export interface Listed {
  id: string;
  time: string;
  hostname?: string;
  tags?: string[] | null;
  paths?: string[] | null;
}

/** Tags that tell which snapshot it is, and of which VM. */
export const identityTags = (
  uuid: string | undefined,
  { made, id }: { made: Date; id: string | undefined },
): string[] => [
  ...(uuid === undefined ? [] : [TAG.uuid(uuid)]),
  ...(id === undefined ? [] : [TAG.snapshotId(id)]),
  TAG.made(made.toISOString()),
];

/** @returns undefined for a snapshot that this program did not push */
export function parseListed({ id, time, hostname = "", tags, paths }: Listed): RemoteSnapshot | undefined {
  const valueOf = (begin: string): string | undefined => {
    const tag = tags?.find((item) => item.startsWith(begin));
    return tag === undefined ? undefined : decodeTag(tag.slice(begin.length));
  };
  const name = valueOf(TAG.snapshot(""));
  const vm = valueOf(TAG.vm(""));
  if (name === undefined || vm === undefined) return undefined;
  const uuid = valueOf(TAG.uuid(""));
  const snapshotId = valueOf(TAG.snapshotId(""));
  return {
    id,
    name,
    made: parseTime(valueOf(TAG.made(""))) ?? new Date(time),
    vm,
    uuid: isUuid(uuid) ? uuid : null,
    snapshotId: isSnapshotId(snapshotId) ? snapshotId : null,
    host: hostname,
    // HOSTDIR/backups/NAME
    directory: dirname(dirname(paths?.[0] ?? "")),
    protected: tags?.includes(TAG.protected) === true,
  };
}

function parseTime(text: string | undefined): Date | undefined {
  if (text === undefined || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(text)) return undefined;
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? undefined : time;
}

function decodeTag(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** `YYYY-MM-DD HH:MM:SS` in UTC, as restic's `--time` takes it. */
export const formatUtc = (time: Date): string => time.toISOString().slice(0, 19).replace("T", " ");

/** As restic shows an id. */
export const shorten = (id: string): string => id.slice(0, 8);
