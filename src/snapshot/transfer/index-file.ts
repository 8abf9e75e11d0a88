/**
 * The format of an exported VM: a tar archive whose bytes follow from its first member, the index, and from the data.
 * `vm-export.json`, then the files of each snapshot in the order of the index as `0/disk-0.qcow2` (0: the first of the
 * chain), then SHA256SUMS with a line for each member before it, and two blocks of zeroes.
 */
import { VmError } from "../../lib/errors.ts";
import { MAX_SMALL_BYTES } from "../../lib/read-file.ts";
import { formatSize } from "../../lib/size.ts";
import { buildTarHeader, MAX_TAR_NAME } from "../../lib/tar.ts";
import { isPlainName } from "../../lib/text.ts";
import { isUuid } from "../../lib/uuid.ts";
import { isLargeFile } from "../../store/layout.ts";
import { isSnapshotName } from "../../store/snapshots.ts";

export const INDEX = "vm-export.json";
export const TRAILER = "SHA256SUMS";

/** A file of a snapshot. */
export interface IndexedFile {
  /** Position of its snapshot in the chain. */
  snapshot: number;
  name: string;
  bytes: number;
  /** Absent if it was not known when the export began. */
  sha256?: string;
}

export interface Index {
  version: 1;
  tool: string;
  /** Name of the VM. */
  guest: string;
  vm?: string;
  /** Snapshots, parents first; the last one is the exported one. */
  chain: string[];
  /** By snapshot, SHA256SUMS of each last. */
  files: IndexedFile[];
}

/** Name of a file in the archive. */
export const memberName = ({ snapshot, name }: Pick<IndexedFile, "snapshot" | "name">): string =>
  `${snapshot}/${name}`;

/** Each member has the same time: two exports of a snapshot have the same bytes. */
export const memberHeader = (name: string, bytes: number): Buffer => buildTarHeader(name, bytes, 0);

export const formatIndex = (index: Index): string => `${JSON.stringify(index, null, 1)}\n`;

const MOST_SNAPSHOTS = 1000;

/** No filesystem of Linux has larger files (8 EiB), and no disk is larger than 2 PiB; sums must stay exact. */
const MAX_FILE_BYTES = 2 ** 52;

/** Why a file cannot be a member; undefined if it can. */
export function findNameProblem(name: unknown): string | undefined {
  if (!isPlainName(name)) return `${JSON.stringify(name)} is not a file name`;
  if (name.startsWith(".")) return `${name} is a hidden file`;
  return Buffer.byteLength(memberName({ snapshot: MOST_SNAPSHOTS, name })) > MAX_TAR_NAME
    ? `the name ${name} is too long`
    : undefined;
}

const invalidIndex = (reason: string): VmError =>
  new VmError("io", `refusing the export: ${reason}`, { hint: "export it again" });

/**
 * Parses the index of an untrusted archive.
 * @throws 74 if it is damaged or names what no snapshot has, 78 if a newer version wrote it
 */
export function parseIndex(text: string): Index {
  let value: Partial<Index>;
  try {
    value = JSON.parse(text) as Partial<Index>;
  } catch {
    throw invalidIndex(`${INDEX} is damaged`);
  }
  if (typeof value !== "object" || value === null || typeof value.version !== "number")
    throw invalidIndex(`${INDEX} is damaged`);
  if (value.version !== 1)
    throw new VmError("config", `the export was made by a newer version (format ${value.version})`, {
      hint: "use that version",
      reason: "newer",
    });
  const { guest, vm, chain, files } = value;
  if (typeof guest !== "string" || typeof value.tool !== "string" || (vm !== undefined && !isUuid(vm)))
    throw invalidIndex(`${INDEX} is damaged`);
  if (!Array.isArray(chain) || chain.length === 0 || chain.length > MOST_SNAPSHOTS)
    throw invalidIndex("it has no snapshots, or too many");
  const strange = chain.find((name) => typeof name !== "string" || !isSnapshotName(name));
  if (strange !== undefined) throw invalidIndex(`${JSON.stringify(strange)} cannot be a snapshot's name`);
  if (new Set(chain).size < chain.length) throw invalidIndex("two of its snapshots have the same name");
  if (!Array.isArray(files)) throw invalidIndex(`${INDEX} is damaged`);
  const seen = new Set<string>();
  for (const file of files as Partial<IndexedFile>[]) {
    const { snapshot = -1, name, bytes = -1, sha256 } = file ?? {};
    const problem = findNameProblem(name);
    if (problem !== undefined) throw invalidIndex(problem);
    if (!Number.isSafeInteger(snapshot) || snapshot < 0 || snapshot >= chain.length)
      throw invalidIndex(`${name} is in none of its snapshots`);
    if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes > MAX_FILE_BYTES)
      throw invalidIndex(`${name} cannot have ${String(bytes)} bytes`);
    if (bytes > MAX_SMALL_BYTES && !isLargeFile(name!))
      throw invalidIndex(`${name} is larger than ${formatSize(MAX_SMALL_BYTES)}`);
    if (sha256 !== undefined && !/^[0-9a-f]{64}$/.test(sha256)) throw invalidIndex(`${INDEX} is damaged`);
    const member = memberName({ snapshot, name: name! });
    if (seen.has(member)) throw invalidIndex(`it has ${member} twice`);
    seen.add(member);
  }
  return value as Index;
}

/** Bytes of all files. */
export const totalOf = ({ files }: Index): number => files.reduce((sum, { bytes }) => sum + bytes, 0);
