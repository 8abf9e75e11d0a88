import { statSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { lastLineOf, ProcessError, start, type Finished } from "../../process/exec.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { findExternalReference, findHeaderDamage, readOwnHeader } from "../../qemu/image-header.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { removeQuietly, requireSpace } from "../../store/files.ts";
import { readGzHead } from "../../store/gz-head.ts";
import { gzipLengthHint, unpackFiles } from "../../store/gz.ts";
import { SNAPSHOT } from "../../store/layout.ts";
import { findSmallFileDamage, SMALL_FILES, SMALL_HEAD_BYTES } from "../../store/small-files.ts";
import type { StoredFile } from "../../store/manifest.ts";

/** Depth, priority and scratch directory of a check. */
export interface VerifyOptions {
  deep: boolean;
  low: boolean;
  /** Creates a directory for decompressed files, when first called. */
  scratchDir: () => string;
}

export interface ImageFacts {
  "virtual-size": number;
  "backing-filename"?: string;
  "backing-filename-format"?: string;
}

/** Results of a check. Notes are harmless. */
export interface Found {
  problems: string[];
  notes: string[];
  /** Of a readable qcow2 image. */
  facts?: ImageFacts;
}

/** In JSON any file name is taken literally; without a backing file each image is checked by itself. */
const imageOf = (path: string): string =>
  `json:${JSON.stringify({ driver: "qcow2", backing: null, file: { driver: "file", filename: path } })}`;

async function run(argv: readonly string[], low: boolean): Promise<Finished> {
  const result = await start(argv, { low }).done;
  throwIfInterrupted();
  return result;
}

/** Files of another type or length are reported by `checkNames`, and not read. */
function hasRecordedLength(path: string, known: StoredFile | undefined): boolean {
  const stats = lstatOf(path);
  return stats?.isFile() === true && (known === undefined || stats.size === known.storedBytes);
}

/** Checks a gzip file; with `deep` also the qcow2 image in it. */
export async function checkGz(
  dir: string,
  file: string,
  known: StoredFile | undefined,
  options: VerifyOptions,
): Promise<Found> {
  const path = join(dir, file);
  const found: Found = { problems: [], notes: [] };
  if (!hasRecordedLength(path, known)) return found;
  const hint = gzipLengthHint(path);
  // gzip stores it modulo 4 GiB.
  if (known && hint !== known.bytes % 2 ** 32)
    found.problems.push(`${file} does not decompress to ${known.bytes} bytes`);
  const damage = findSmallDamage(path, file, known?.bytes ?? hint);
  if (damage !== undefined) found.problems.push(`${file}: ${damage}`);
  if (options.deep) await checkUnpacked(path, file, known, hint, options, found);
  else {
    const result = await run(["pigz", "-t", path], options.low);
    if (result.status !== 0 || result.stderr !== "")
      found.problems.push(
        `${file} is not an intact gzip file: ${lastLineOf(result).replace(`${path} `, "")}`,
      );
  }
  return found;
}

/** Checks size and header of UEFI variables and of a TPM's state, as `run` does. @param bytes the length of the content */
function findSmallDamage(path: string, file: string, bytes: number): string | undefined {
  const name = file.slice(0, -SNAPSHOT.gz.length);
  if (!SMALL_FILES.has(name)) return undefined;
  try {
    return findSmallFileDamage(name, readGzHead(path, SMALL_HEAD_BYTES), bytes);
  } catch {
    // No gzip file: pigz says so.
    return undefined;
  }
}

async function checkUnpacked(
  from: string,
  file: string,
  known: StoredFile | undefined,
  hint: number,
  options: VerifyOptions,
  found: Found,
): Promise<void> {
  const { size } = statSync(from);
  const directory = options.scratchDir();
  requireSpace(directory, known?.allocatedBytes ?? Math.max(size, hint), `decompress ${from}`, "tmpdir");
  const name = file.slice(0, -SNAPSHOT.gz.length);
  const to = join(directory, name);
  // One at a time, to need space for the largest only.
  using _unpacked = { [Symbol.dispose]: () => removeQuietly(to) };
  try {
    const jobs = [{ name, from, to, bytes: size }];
    await unpackFiles(jobs, () => {}, options.low);
  } catch (error) {
    // A full disk or an interruption is not a damaged file.
    if (!(error instanceof VmError) || error.code !== "io") throw error;
    const why = error instanceof ProcessError ? lastLineOf(error.result) : error.message;
    found.problems.push(`cannot decompress ${file}: ${why}`);
    return;
  }
  const { size: bytes } = statSync(to);
  if (known && bytes !== known.bytes)
    found.problems.push(`${file} decompresses to ${bytes} bytes instead of ${known.bytes}`);
  if (!name.startsWith("disk-")) return;
  const foreign = findExternalReference(to);
  if (foreign !== undefined) return void found.problems.push(`${file}: ${foreign}`);
  const unpacked = known && { ...known, storedBytes: known.bytes };
  const { problems, notes } = await checkQcow2(directory, name, unpacked, { ...options, deep: false });
  found.problems.push(...problems.map((line) => line.replace(name, file)));
  found.notes.push(...notes.map((line) => line.replace(name, file)));
}

/** Exit statuses of `qemu-img check` (its man page); with any other the check failed. */
const CHECK: Readonly<Record<number, "good" | "corrupt" | "leaks">> = { 0: "good", 2: "corrupt", 3: "leaks" };

/** Checks a qcow2 image without its backing file; with `deep` reads all its clusters. */
export async function checkQcow2(
  dir: string,
  file: string,
  known: StoredFile | undefined,
  options: VerifyOptions,
): Promise<Found> {
  const path = join(dir, file);
  const found: Found = { problems: [], notes: [] };
  if (!hasRecordedLength(path, known)) return found;
  const fail = (text: string): typeof found => {
    found.problems.push(`${file} ${text}`);
    return found;
  };
  // Before qemu-img, which would open the data file.
  const header = readOwnHeader(path);
  if (header.refersTo === "data file") return fail("refers to an external data file");
  const info = await run(["qemu-img", "info", "--output=json", imageOf(path)], false);
  if (info.status !== 0) return fail(`is not a readable qcow2 image: ${lastLineOf(info)}`);
  found.facts = JSON.parse(info.stdout) as ImageFacts;
  const size = found.facts["virtual-size"];
  if (known?.virtualBytes !== undefined && size !== known.virtualBytes)
    fail(`holds a disk of ${size} bytes instead of ${known.virtualBytes}`);
  const check = await run(["qemu-img", "check", "--output=json", imageOf(path)], options.low);
  const state = CHECK[check.status ?? -1];
  const damage = header.qcow2 && findHeaderDamage(header);
  if (damage !== undefined) fail(`is damaged: ${damage}`);
  if (state === "corrupt") fail("is corrupt (see qemu-img check)");
  else if (state === "leaks") found.notes.push(`${file} has leaked clusters, which are harmless`);
  else if (state === undefined) fail(`could not be checked: ${lastLineOf(check)}`);
  if (!options.deep || state === "corrupt" || state === undefined) return found;
  // Unallocated clusters are not read: a disk of 1 TiB may have many.
  const argv = ["qemu-img", "convert", "-n", "--target-is-zero", "--target-image-opts", imageOf(path)];
  const read = await run([...argv, `driver=null-co,size=${size}`], options.low);
  return read.status === 0 ? found : fail(`cannot be read completely: ${lastLineOf(read)}`);
}
