/** Listings of the job `files`: one record an entry, sorted by its bytes. What they say is from a guest. */
import { closeSync, readSync } from "node:fs";
import { VmError } from "../lib/errors.ts";
import { openForReading } from "../lib/read-file.ts";
import { formatTimestamp } from "../lib/time.ts";

/** An entry of a listing. */
export interface FileEntry {
  /** Path below the listed one; empty: that itself. */
  path: Buffer;
  /** As of find(1): `f`, `d`, `l`, `b`, `c`, `p`, `s`. */
  type: string;
  /** The twelve bits, octal. */
  mode: string;
  uid: number;
  gid: number;
  size: number;
  /** Seconds since 1970, with a fraction. */
  mtime: string;
  /** Of a symlink. */
  target: Buffer | undefined;
  /** SHA-256 of a regular file, if it was asked for. */
  sum?: string;
}

const CHUNK_BYTES = 1 << 16;
/** Two paths of PATH_MAX, and the numbers. */
export const MAX_RECORD_BYTES = 3 * 4096;

const invalidListing = (): VmError =>
  new VmError("io", "cannot read the listing: the rescue has written something else");

/** Records of a file, each ended by a NUL. @throws 74 for one that is too long */
function* readRecords(path: string): Generator<Buffer> {
  const fd = openForReading(path);
  try {
    let rest = Buffer.alloc(0);
    const chunk = Buffer.alloc(CHUNK_BYTES);
    for (let length = readSync(fd, chunk); length > 0; length = readSync(fd, chunk)) {
      rest = Buffer.concat([rest, chunk.subarray(0, length)]);
      let from = 0;
      for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0, from)) {
        yield rest.subarray(from, end);
        from = end + 1;
      }
      rest = Buffer.from(rest.subarray(from));
      if (rest.length > MAX_RECORD_BYTES) throw invalidListing();
    }
    if (rest.length > 0) throw invalidListing();
  } finally {
    closeSync(fd);
  }
}

/** Pure: `PATH//TYPE MODE UID GID SIZE MTIME TARGET`, or `PATH//s SUM`. @throws 74 for anything else */
export function parseFileRecord(record: Buffer): FileEntry | { path: Buffer; sum: string } {
  const end = record.indexOf("//");
  if (end < 0) throw invalidListing();
  const path = Buffer.from(record.subarray(0, end));
  const facts = record.subarray(end + 2);
  const text = facts.toString("latin1");
  const sum = /^s ([0-9a-f]{64})$/.exec(text)?.[1];
  if (sum !== undefined) return { path, sum };
  const match =
    /^([a-zA-Z?]) ([0-7]{1,4}) (\d{1,10}) (\d{1,10}) (\d{1,19}) (-?\d{1,19}(?:\.\d{1,12})?) /.exec(text);
  if (!match) throw invalidListing();
  const [whole, type = "", mode = "", uid, gid, size, mtime = ""] = match;
  const target = type === "l" ? Buffer.from(facts.subarray(whole.length)) : undefined;
  return {
    path,
    type,
    mode: mode.padStart(4, "0"),
    uid: Number(uid),
    gid: Number(gid),
    size: Number(size),
    mtime,
    target,
  };
}

/** Entries of a sorted listing, with the checksum that follows each. */
export function* readListing(file: string): Generator<FileEntry> {
  let last: FileEntry | undefined;
  for (const record of readRecords(file)) {
    const item = parseFileRecord(record);
    if ("type" in item) {
      if (last) yield last;
      last = item;
    } else if (last?.path.equals(item.path)) last.sum = item.sum;
  }
  if (last) yield last;
}

/** Records of a listing are in this order. */
export const compareEntries = (a: FileEntry, b: FileEntry): number =>
  Buffer.compare(Buffer.concat([a.path, SLASHES]), Buffer.concat([b.path, SLASHES]));
const SLASHES = Buffer.from("//");

/** Fields of a listing of filesystems: name, type, size in bytes, where it is mounted. */
export function* readVolumes(file: string): Generator<readonly [string, string, number, string]> {
  let fields: string[] = [];
  for (const record of readRecords(file)) {
    fields.push(record.toString());
    if (fields.length < 4) continue;
    const [name = "", type = "", size = "", where = ""] = fields;
    yield [name, type, Number(size), where];
    fields = [];
  }
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of a name; undefined if it is not UTF-8. */
export function decodeName(name: Buffer): string | undefined {
  try {
    return strict.decode(name);
  } catch {
    return undefined;
  }
}

/** What a terminal takes for more than text (lib/text.ts). */
const SPECIAL = /[\\\p{Cc}\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/u;

const escapeOctal = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");

/** Pure: a name on one line, as `ls -b` shows it: special characters, and bytes that are not UTF-8, are escaped. */
export function escapeName(name: Buffer): string {
  const text = decodeName(name);
  if (text === undefined)
    return [...name]
      .map((byte) =>
        byte < 0x80 ? escapeCharacter(String.fromCharCode(byte)) : escapeOctal([byte] as never),
      )
      .join("");
  return SPECIAL.test(text) ? [...text].map(escapeCharacter).join("") : text;
}

function escapeCharacter(character: string): string {
  if (character === "\\") return "\\\\";
  if (character === "\n") return "\\n";
  if (character === "\t") return "\\t";
  return SPECIAL.test(character) ? escapeOctal(Buffer.from(character)) : character;
}

const TYPES: Readonly<Record<string, string>> = { f: "-" };

/** Pure: `drwxr-xr-x`, as ls(1) shows a mode. */
export function formatMode(type: string, mode: string): string {
  const bits = Number.parseInt(mode, 8);
  const triple = (shift: number, special: number, letter: string): string => {
    const part = bits >> shift;
    const runs = (part & 1) !== 0;
    const x = bits & special ? (runs ? letter : letter.toUpperCase()) : runs ? "x" : "-";
    return `${part & 4 ? "r" : "-"}${part & 2 ? "w" : "-"}${x}`;
  };
  return `${TYPES[type] ?? type}${triple(6, 0o4000, "s")}${triple(3, 0o2000, "s")}${triple(0, 0o1000, "t")}`;
}

/** Pure: one line for people. @param name of the listed path itself */
export function formatEntry(entry: FileEntry, name: string): string {
  const { type, mode, uid, gid, size, mtime, target, path } = entry;
  const owner = `${uid}:${gid}`.padEnd(11);
  const time = formatTimestamp(new Date(Number(mtime) * 1000)).slice(0, 16);
  const shown = path.length === 0 ? name : escapeName(path);
  const link = target ? ` -> ${escapeName(target)}` : "";
  return `${formatMode(type, mode)}  ${owner}  ${String(size).padStart(10)}  ${time}  ${shown}${link}`;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  f: "file",
  d: "directory",
  l: "symlink",
  b: "block device",
  c: "character device",
  p: "pipe",
  s: "socket",
};

/** Pure: an entry of `--json`. A name that is not UTF-8 is given in base64, with its bytes. */
export function entryToJson(entry: FileEntry, name?: Buffer): Record<string, unknown> {
  const { path, type, mode, uid, gid, size, mtime, target, sum } = entry;
  const named = path.length === 0 && name !== undefined ? name : path;
  return {
    ...bytesToJson("path", named),
    type: TYPE_NAMES[type] ?? "unknown",
    mode,
    uid,
    gid,
    size,
    mtime: Number(mtime),
    ...(target && bytesToJson("target", target)),
    ...(sum !== undefined && { sha256: sum }),
  };
}

function bytesToJson(key: string, bytes: Buffer): Record<string, string> {
  const text = decodeName(bytes);
  return text === undefined ? { [`${key}Base64`]: bytes.toString("base64") } : { [key]: text };
}
