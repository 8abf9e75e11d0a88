import { statSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { lastLineOf, ProcessError, start, type Finished } from "../../process/exec.ts";
import { gentle } from "../../process/gentle.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { findExternalReference, findHeaderDamage, readOwnHeader } from "../../qemu/image-header.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { removeQuietly, requireRoom } from "../../store/files.ts";
import { gzipLengthHint, unpackFiles } from "../../store/gz.ts";
import { SNAPSHOT } from "../../store/layout.ts";
import type { StoredFile } from "../../store/manifest.ts";

/** How thoroughly, and where there is room for what is unpacked. */
export interface VerifyOptions {
  deep: boolean;
  low: boolean;
  /** A new directory for unpacked files, made when it is needed. */
  room: () => string;
}

export interface ImageFacts {
  "virtual-size": number;
  "backing-filename"?: string;
  "backing-filename-format"?: string;
}

/** What a check found. `note`: it does no harm. */
export interface Found {
  problems: string[];
  notes: string[];
  /** Of a qcow2 image that could be opened. */
  facts?: ImageFacts;
}

/** JSON: any file name is no more than a name; without a backing file each image answers for its own part. */
const imageOf = (path: string): string =>
  `json:${JSON.stringify({ driver: "qcow2", backing: null, file: { driver: "file", filename: path } })}`;

async function run(argv: readonly string[], low: boolean): Promise<Finished> {
  const result = await start(low ? gentle(argv) : argv).done;
  throwIfInterrupted();
  return result;
}

/** What has another length than it had, or is no file, is said already: it is not read, however long it may be. */
function hasRecordedLength(path: string, known: StoredFile | undefined): boolean {
  const stats = lstatOf(path);
  return stats?.isFile() === true && (known === undefined || stats.size === known.storedBytes);
}

/** `disk-0.img.gz`: a whole gzip stream; deep: of a whole qcow2 image of the right size. */
export async function checkGz(
  dir: string,
  file: string,
  known: StoredFile | undefined,
  care: VerifyOptions,
): Promise<Found> {
  const path = join(dir, file);
  const found: Found = { problems: [], notes: [] };
  if (!hasRecordedLength(path, known)) return found;
  const hint = gzipLengthHint(path);
  // gzip notes it modulo 4 GiB.
  if (known && hint !== known.bytes % 2 ** 32)
    found.problems.push(`${file} does not decompress to its ${known.bytes} bytes`);
  if (care.deep) await checkUnpacked(path, file, known, hint, care, found);
  else {
    const result = await run(["pigz", "-t", path], care.low);
    if (result.status !== 0 || result.stderr !== "")
      found.problems.push(`${file} is no whole gzip file: ${lastLineOf(result).replace(`${path} `, "")}`);
  }
  return found;
}

async function checkUnpacked(
  from: string,
  file: string,
  known: StoredFile | undefined,
  hint: number,
  care: VerifyOptions,
  found: Found,
): Promise<void> {
  const { size } = statSync(from);
  const directory = care.room();
  requireRoom(directory, known?.allocatedBytes ?? Math.max(size, hint), `unpack ${from}`, "tmpdir");
  const name = file.slice(0, -SNAPSHOT.gz.length);
  const to = join(directory, name);
  // One at a time: there need only be room for the largest.
  using _unpacked = { [Symbol.dispose]: () => removeQuietly(to) };
  try {
    const jobs = [{ name, from, to, bytes: size }];
    await unpackFiles(jobs, () => {}, care.low ? gentle : undefined);
  } catch (error) {
    // Not for want of room, nor because somebody stopped us.
    if (!(error instanceof VmError) || error.code !== "io") throw error;
    const why = error instanceof ProcessError ? lastLineOf(error.result) : error.message;
    found.problems.push(`${file} does not unpack: ${why}`);
    return;
  }
  const { size: bytes } = statSync(to);
  if (known && bytes !== known.bytes)
    found.problems.push(`${file} unpacks to ${bytes} bytes instead of ${known.bytes}`);
  if (!name.startsWith("disk-")) return;
  const foreign = findExternalReference(to);
  if (foreign !== undefined) return void found.problems.push(`${file}: ${foreign}`);
  const unpacked = known && { ...known, storedBytes: known.bytes };
  const { problems, notes } = await checkQcow2(directory, name, unpacked, { ...care, deep: false });
  found.problems.push(...problems.map((line) => line.replace(name, file)));
  found.notes.push(...notes.map((line) => line.replace(name, file)));
}

/** Statuses of `qemu-img check` (its man page); others: it could not look. */
const CHECK: Readonly<Record<number, "good" | "corrupt" | "leaks">> = { 0: "good", 2: "corrupt", 3: "leaks" };

/** A qcow2 image's own part; deep: every cluster of it is read and unpacked. */
export async function checkQcow2(
  dir: string,
  file: string,
  known: StoredFile | undefined,
  care: VerifyOptions,
): Promise<Found> {
  const path = join(dir, file);
  const found: Found = { problems: [], notes: [] };
  if (!hasRecordedLength(path, known)) return found;
  const fail = (text: string): typeof found => {
    found.problems.push(`${file} ${text}`);
    return found;
  };
  // Before any program opens it: it would open that file too.
  const header = readOwnHeader(path);
  if (header.refersTo === "data file") return fail("refers to an external data file");
  const info = await run(["qemu-img", "info", "--output=json", imageOf(path)], false);
  if (info.status !== 0) return fail(`is no qcow2 image that can be read: ${lastLineOf(info)}`);
  found.facts = JSON.parse(info.stdout) as ImageFacts;
  const size = found.facts["virtual-size"];
  if (known?.virtualBytes !== undefined && size !== known.virtualBytes)
    fail(`holds a disk of ${size} bytes instead of ${known.virtualBytes}`);
  const check = await run(["qemu-img", "check", "--output=json", imageOf(path)], care.low);
  const state = CHECK[check.status ?? -1];
  const damage = header.qcow2 && findHeaderDamage(header);
  if (damage !== undefined) fail(`cannot be used: ${damage}`);
  if (state === "corrupt") fail("is corrupt inside (qemu-img check shows how)");
  else if (state === "leaks") found.notes.push(`${file} has clusters that nothing uses, which does no harm`);
  else if (state === undefined) fail(`could not be checked: ${lastLineOf(check)}`);
  if (!care.deep || state === "corrupt" || state === undefined) return found;
  const argv = ["qemu-img", "convert", "-n", "--target-image-opts", imageOf(path)];
  const read = await run([...argv, `driver=null-co,size=${size}`], care.low);
  return read.status === 0 ? found : fail(`cannot be read to its end: ${lastLineOf(read)}`);
}
