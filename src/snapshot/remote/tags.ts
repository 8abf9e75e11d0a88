/** Tags of a VM's snapshot in a restic repository; read back as untrusted data. */
import { dirname } from "node:path";
import { isUuid } from "../../lib/uuid.ts";
import { isSnapshotId } from "../../store/manifest.ts";

/** A snapshot of this program in a repository, as `--json` prints it. */
export interface RemoteSnapshot {
  /** restic's id, in full. */
  id: string;
  /** Name of the pushed snapshot. */
  name: string;
  made: Date;
  /** Name of the VM's directory. */
  vm: string;
  /** The VM's UUID, and the snapshot's id from its manifest; null for those of older versions. */
  uuid: string | null;
  snapshotId: string | null;
  /** Host and directory that it was pushed from. */
  host: string;
  directory: string;
  protected: boolean;
  /** Size of the guest's RAM; null without it. */
  ramBytes: number | null;
}

/** restic splits tags at commas, so free text is percent-encoded. */
export const TAG = {
  program: "vm",
  vm: (name: string): string => `vm-name=${encodeURIComponent(name)}`,
  snapshot: (name: string): string => `vm-snapshot=${encodeURIComponent(name)}`,
  uuid: (uuid: string): string => `vm-uuid=${uuid}`,
  snapshotId: (id: string): string => `vm-id=${id}`,
  /** ISO 8601, UTC, with milliseconds: restic's own time has whole seconds. */
  made: (time: string): string => `vm-made=${time}`,
  protected: "vm-protected",
  ram: (bytes: number | ""): string => `vm-ram=${bytes}`,
} as const;

/** Entry of `restic snapshots --json`; empty fields are absent or null. */
export interface Listed {
  id: string;
  time: string;
  hostname?: string;
  tags?: string[] | null;
  paths?: string[] | null;
}

/** Tags that identify the snapshot and its VM. */
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
    ramBytes: parseCount(valueOf(TAG.ram(""))),
  };
}

const parseCount = (text: string | undefined): number | null =>
  text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : null;

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

/** `YYYY-MM-DD HH:MM:SS` in UTC, the format of restic's `--time`. */
export const formatUtc = (time: Date): string => time.toISOString().slice(0, 19).replace("T", " ");

/** Abbreviates an id like restic. */
export const shorten = (id: string): string => id.slice(0, 8);
