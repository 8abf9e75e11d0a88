import { closeSync, fstatSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sha256 } from "../../lib/crypto.ts";
import { VmError } from "../../lib/errors.ts";
import { lstatOf, MAX_SMALL_BYTES, readSmallBytes } from "../../lib/read-file.ts";
import { formatSumLine } from "../../lib/sha256sums.ts";
import { parseTarHeader, TAR_BLOCK, TAR_END, tarPadding } from "../../lib/tar.ts";
import { readExactly, type ByteSource } from "../../process/byte-source.ts";
import { computeSum } from "../../store/checksums.ts";
import { createFile, syncDescriptor, syncDirectory, writeNew } from "../../store/files.ts";
import { remove } from "../../store/remove.ts";
import type { Meter } from "../../vm/context.ts";
import {
  INDEX,
  memberHeader,
  memberName,
  parseIndex,
  TRAILER,
  type Index,
  type IndexedFile,
} from "./index-file.ts";

/** In the directory that an export is received in: its index, a file that is being received, and `0/disk-0.qcow2` …. */
const RECEIVING = "receiving";

const refused = (reason: string): VmError =>
  new VmError("io", `refusing the export: ${reason}`, { hint: "export it again, or copy the file again" });

/** Tells an export that is truncated, whose first part can be used, from a damaged one. */
export const TRUNCATED = "it is truncated";

/** Nothing can continue a pipe: what was received of it is removed. */
const truncatedExport = ({ length }: ByteSource): VmError =>
  new VmError("io", `refusing the export: ${TRUNCATED}`, {
    brief: TRUNCATED,
    hint:
      length === undefined
        ? "send it again; nothing of it is kept. Over an unreliable network, copy a file, and import that"
        : "copy the rest of it, and run the command again: what was received of the file is kept",
  });

const readPart = (source: ByteSource, bytes: number): Promise<Buffer> =>
  readExactly(source, bytes, () => truncatedExport(source));

/** Compares bytes that follow from what came before. */
async function expectBytes(source: ByteSource, expected: Buffer, what: string): Promise<void> {
  if (!(await readPart(source, expected.length)).equals(expected)) throw refused(`it is damaged at ${what}`);
}

/** The same for a header. That of another program, such as tar, has other fields. */
async function expectHeader(source: ByteSource, name: string, bytes: number): Promise<void> {
  const header = await readPart(source, TAR_BLOCK);
  if (memberHeader(name, bytes).equals(header)) return;
  throw parseTarHeader(header) ? packedAgain() : refused(`it is damaged at ${name}`);
}

/** An archive with the same files: its checksums may be right, but not its order, its headers or its length. */
const packedAgain = (why = "it is not the archive that export wrote: it"): VmError =>
  new VmError("io", `refusing the export: ${why} was packed again by another program`, {
    hint: "import the original file",
  });

/** All that follows, up to a limit. */
async function refuseMore(source: ByteSource): Promise<void> {
  const more = await source.read(MAX_PADDING);
  if (more.length > 0)
    throw more.every((byte) => byte === 0)
      ? packedAgain("there is data after its end, zeroes: it")
      : refused("there is data after its end");
}

/** Of an archive that tar writes: it fills blocks of 10 KiB by default. */
const MAX_PADDING = 1 << 16;

/** The first member. @throws 74 for anything but an export */
export async function readIndex(source: ByteSource): Promise<{ index: Index; text: string }> {
  const header = await source.read(TAR_BLOCK);
  if (header.length === 0)
    throw new VmError("io", `cannot import ${source.name}: it is empty`, {
      hint: source.length === undefined ? "check why the program before the pipe wrote nothing" : undefined,
    });
  const first = header.length === TAR_BLOCK ? parseTarHeader(header) : undefined;
  if (first?.name !== INDEX) {
    // As tar writes it, of a directory.
    if (first && /^(\.\/?$|\.\/vm-export\.json$|\d+\/)/.test(first.name)) throw packedAgain();
    const isOva = first?.name.toLowerCase().endsWith(".ovf");
    throw new VmError("io", `cannot import ${source.name}: it is not an export of this program`, {
      hint: isOva ? "import it as what it is: --format=ova" : "make one: vm export -o FILE",
    });
  }
  if (first.bytes > MAX_SMALL_BYTES) throw refused(`it is damaged at ${INDEX}`);
  if (!memberHeader(INDEX, first.bytes).equals(header)) throw packedAgain();
  const bytes = await readPart(source, first.bytes);
  await expectBytes(source, Buffer.alloc(tarPadding(first.bytes)), INDEX);
  return { index: parseIndex(bytes.toString()), text: bytes.toString() };
}

/** Is what an interrupted import left in a directory from this export? */
export const isFrom = (staged: string, text: string): boolean =>
  readSmallBytes(join(staged, INDEX))?.equals(Buffer.from(text)) === true;

/** Makes the directory that an export is received in, with its index. */
export function prepare(staged: string, { index, text }: { index: Index; text: string }): void {
  if (lstatOf(staged)) remove(staged);
  mkdirSync(staged, { mode: 0o700 });
  for (const position of index.chain.keys()) mkdirSync(join(staged, String(position)), { mode: 0o700 });
  writeNew(join(staged, INDEX), text);
  syncDirectory(staged);
}

/**
 * Receives all files, and checks that nothing is missing or changed. Those that an earlier attempt received are read, and
 * not received again.
 * @returns the checksums by member
 * @throws 73 without space, 74 if the export is truncated or damaged
 */
export async function receive(
  source: ByteSource,
  staged: string,
  { index, text }: { index: Index; text: string },
  meter: Meter,
): Promise<ReadonlyMap<string, string>> {
  rmSync(join(staged, RECEIVING), { force: true });
  const sums = new Map<string, Promise<string>>([[INDEX, Promise.resolve(sha256(text))]]);
  let done = 0;
  // A file is written back while its checksum is computed, and both while the next one is received.
  let before: Promise<unknown> = Promise.resolve();
  try {
    for (const file of index.files) {
      const name = memberName(file);
      await expectHeader(source, name, file.bytes);
      const path = join(staged, name);
      const kept = lstatOf(path)?.isFile() === true && statSync(path).size === file.bytes;
      let written: Promise<unknown> | undefined;
      if (kept) await source.skip(file.bytes, `cannot read ${source.name}`);
      else ({ written } = await receiveFile(source, staged, file, (part) => meter.update(done + part)));
      await expectBytes(source, Buffer.alloc(tarPadding(file.bytes)), name);
      await before;
      const sum = sumOf(staged, file, kept);
      sums.set(name, sum);
      before = Promise.all([sum, written]);
      before.catch(() => {});
      done += file.bytes;
      meter.update(done);
    }
    await before;
    const lines = await Promise.all(
      [...sums].map(async ([name, sum]) => formatSumLine({ name, sum: await sum })),
    );
    const trailer = Buffer.from(lines.join(""));
    await expectHeader(source, TRAILER, trailer.length);
    await expectBytes(source, trailer, TRAILER);
    await expectBytes(source, Buffer.alloc(tarPadding(trailer.length)), TRAILER);
    await expectBytes(source, TAR_END, "its end");
    await refuseMore(source);
  } catch (error) {
    await before.catch(() => {});
    throw error;
  }
  return new Map(await Promise.all([...sums].map(async ([name, sum]) => [name, await sum] as const)));
}

/** @returns `written` once it is durable: what was not is found by its checksum, after a crash of the host */
async function receiveFile(
  source: ByteSource,
  staged: string,
  file: IndexedFile,
  follow: (done: number) => void,
): Promise<{ written: Promise<void> }> {
  const name = memberName(file);
  const path = join(staged, RECEIVING);
  const fd = createFile(path);
  try {
    if (file.bytes <= MAX_SMALL_BYTES) writeFileSync(fd, await readPart(source, file.bytes));
    else await source.copyTo(fd, file.bytes, `cannot receive ${name}`, follow);
    if (fstatSync(fd).size !== file.bytes) throw truncatedExport(source);
    renameSync(path, join(staged, name));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  const written = syncDescriptor(fd).finally(() => closeSync(fd));
  written.catch(() => {});
  return { written };
}

/** @throws 74 if a file differs from the index; it is removed, so that it is received again */
async function sumOf(staged: string, file: IndexedFile, kept: boolean): Promise<string> {
  const path = join(staged, memberName(file));
  const sum = await computeSum(path, file.bytes);
  if (sum !== undefined && (file.sha256 === undefined || sum === file.sha256)) return sum;
  rmSync(path, { force: true });
  const wrong = `the checksum of ${memberName(file)} is wrong`;
  if (!kept) throw refused(wrong);
  throw new VmError("io", `cannot continue the import: ${wrong} in what was received before`, {
    brief: TRUNCATED,
    hint: "run the command again: it receives that file again",
  });
}
