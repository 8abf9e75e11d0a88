import { isAbsolute, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { toJson } from "../lib/json.ts";
import { readSmall } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { isPlainName } from "../lib/text.ts";
import { isUuid } from "../lib/uuid.ts";
import { replaceFile } from "./files.ts";
import { HOST } from "./layout.ts";

/** A linked clone, as recorded in the directory of the cloned VM. */
export interface CloneEntry {
  uuid: string;
  /** Its HOSTDIR when it was recorded. */
  directory: string;
  /** Name of the snapshot whose images are its backing files. */
  snapshot: string;
  /** It is being made: recorded first, so that no other command removes the snapshot. */
  pending?: true;
}

/** Limit for an untrusted file. */
const MAX_CLONES = 10_000;

const registryPath = (hostdir: string): string => join(hostdir, HOST.clones);

function parseEntry(value: unknown): CloneEntry | undefined {
  const { uuid, directory, snapshot, pending } = (value ?? {}) as Partial<Record<keyof CloneEntry, unknown>>;
  const known = typeof directory === "string" && isAbsolute(directory) && !directory.includes("\0");
  if (!isUuid(uuid) || !known || !isPlainName(snapshot)) return undefined;
  return { uuid, directory, snapshot, ...(pending === true && { pending }) };
}

/**
 * The recorded linked clones of a VM.
 * @throws 74 for a damaged record: it is not known then which snapshots clones need
 */
export function readClones(hostdir: string): CloneEntry[] {
  const path = registryPath(hostdir);
  const text = readSmall(path);
  if (text === undefined) return [];
  let clones: unknown;
  try {
    ({ clones } = JSON.parse(text) as { clones?: unknown });
  } catch {
    clones = undefined;
  }
  const entries = Array.isArray(clones) && clones.length <= MAX_CLONES ? clones.map(parseEntry) : [undefined];
  if (!entries.every((entry) => entry !== undefined))
    throw new VmError("io", `cannot read the record of linked clones: ${path} is damaged`, {
      hint: `move it away, and run a command that changes it in each clone, which records it again: mv ${shellQuote(path)} ${shellQuote(`${path}.old`)}`,
    });
  return entries;
}

/** Replaces the record. Called under the VM's lock. */
export function writeClones(hostdir: string, clones: readonly CloneEntry[]): void {
  replaceFile(registryPath(hostdir), toJson({ version: 1, clones }));
}

/** Adds clones to the record, in place of those with the same UUID. Sorted: several are made at a time. */
export function recordClones(hostdir: string, added: readonly CloneEntry[]): void {
  const uuids = new Set(added.map(({ uuid }) => uuid));
  const all = [...readClones(hostdir).filter(({ uuid }) => !uuids.has(uuid)), ...added];
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  writeClones(
    hostdir,
    all.toSorted((one, other) => compare(one.directory, other.directory)),
  );
}

/** Removes clones from the record. */
export function forgetClones(hostdir: string, uuids: ReadonlySet<string>): void {
  const before = readClones(hostdir);
  const after = before.filter(({ uuid }) => !uuids.has(uuid));
  if (after.length < before.length) writeClones(hostdir, after);
}
