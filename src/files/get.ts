import {
  chmodSync,
  closeSync,
  lstatSync,
  mkdirSync,
  readSync,
  renameSync,
  statSync,
  truncateSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { JobLogWriter } from "../job/output.ts";
import { closedPipe, usageError, VmError } from "../lib/errors.ts";
import { saysClosedPipe } from "../lib/program-messages.ts";
import { log } from "../lib/log.ts";
import { lstatOf, openForReading } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { STDOUT } from "../lib/standard-streams.ts";
import { counted, plain, quoteLine } from "../lib/text.ts";
import { isBusybox, requireProgram, start } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { isTerminal } from "../process/terminal.ts";
import { allocatedBytes, fileError, requireSpace } from "../store/files.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { detached, openScratch, openSnapshotDisks, type Scratch } from "./disks.ts";
import { hasBadBytes } from "./escaped-path.ts";
import { openPartial } from "./partial.ts";
import type { GetRequest } from "./request.ts";
import { createResult, nameAsInGuest, readCount, requireAll, runFilesJob } from "./run.ts";
import { listingOf, withSnapshot, type SnapshotPlace } from "./snapshot.ts";
import { extract, unpackArchive } from "./unpack.ts";

const STREAM = "-";
const ARCHIVE = "result.raw";
const CHUNK_BYTES = 1 << 16;

/** Copies files of a snapshot to the host. @throws 74 also if some of them could not be copied */
export async function getFiles(context: Context, request: GetRequest): Promise<void> {
  const { paths, destination } = request;
  requireGnuTar();
  const places = destination === STREAM ? undefined : planPlaces(context.cwd, paths, destination);
  await withSnapshot(context, request, "get files of a snapshot", async (vm, place) => {
    using scratch = openScratch(context, vm);
    const cannot = `cannot get files of ${place.snapshot.name}`;
    const archive = await packFiles(context, vm, place, scratch, paths, places ? "pack" : "stream");
    const refused = await deliverFiles(archive, scratch, request, places, cannot);
    warnAboutSpecial(readCount(scratch.work, "skipped") ?? 0);
    warnAboutDangling(readCount(scratch.work, "dangling") ?? 0);
    requireAll(scratch.work, cannot);
    if (refused.length > 0) throw refusedNames(cannot, refused, paths);
    if (places)
      log.success(`copied ${counted(paths.length, "path")} of ${place.snapshot.name} to ${places.shown}`);
  });
}

/** @returns what the destination's filesystem could not have */
async function deliverFiles(
  archive: string,
  scratch: Scratch,
  { paths }: GetRequest,
  places: Places | undefined,
  cannot: string,
): Promise<string[]> {
  try {
    if (!places) {
      await writeStream(archive, scratch, paths[0]!);
      return [];
    }
    using partial = openPartial(places.directory);
    requireSpace(
      places.directory,
      allocatedBytes(statSync(archive)),
      cannot.replace(/^cannot /, ""),
      "destination",
    );
    const refused = await unpackArchive(archive, partial.path, paths.length, cannot);
    throwIfInterrupted();
    for (const [index, target] of places.targets.entries()) {
      const from = join(partial.path, String(index));
      if (lstatOf(from) || refused.length === 0) moveIntoPlace(from, target);
    }
    return refused;
  } catch (error) {
    throw fileError(cannot, error);
  }
}

function warnAboutSpecial(count: number): void {
  if (count > 0) log.warn(`${counted(count, "special file")} left out (devices, pipes, sockets)`);
}

function warnAboutDangling(count: number): void {
  if (count > 0) log.warn(`${counted(count, "dangling symlink")} copied as such`);
}

/** Most names that a message has. */
const SHOWN = 5;

function refusedNames(cannot: string, refused: readonly string[], paths: readonly string[]): VmError {
  const names = refused
    .slice(0, SHOWN)
    .map((name) => `\n  ${quoteLine(nameAsInGuest(`tar: ${name}:`, paths).slice(5, -1))}`);
  const more = refused.length > SHOWN ? `\n  and ${refused.length - SHOWN} more` : "";
  return new VmError(
    "io",
    `${cannot}: ${counted(refused.length, "name")} cannot be on this filesystem; the rest is there:${names.join("")}${more}`,
    { hint: "name a directory on another filesystem" },
  );
}

/** Has the rescue put files into a tar archive, as members `0`, `1` …; or only find them. @returns its path */
export async function packFiles(
  context: Context,
  vm: Vm,
  place: SnapshotPlace,
  scratch: Scratch,
  paths: readonly string[],
  how: "pack" | "pack-all" | "find" | "stream",
): Promise<string> {
  const { snapshot, hostdir } = place;
  const disks = await openSnapshotDisks(context, hostdir, snapshot, scratch);
  const { dir, work } = scratch;
  const result = join(dir, ARCHIVE);
  createResult(result);
  await runFilesJob(context, detached(vm, work), work, {
    operation: how === "stream" ? "pack" : how,
    stream: how === "stream" ? basename(paths[0]!.replace(/^[^/]*:/, "")) || "." : undefined,
    paths,
    disks,
    result,
    cannot: `cannot read files of ${snapshot.name}`,
    listing: listingOf(place),
    keyFile: place.keyFile,
  });
  return result;
}

/** busybox's follows symlinks that an archive has created. */
function requireGnuTar(): void {
  if (isBusybox(requireProgram("tar")))
    throw new VmError("unavailable", "cannot unpack files of a guest: tar is not GNU tar", {
      hint: "install the package tar",
    });
}

interface Places {
  /** Where the files are unpacked before they get their names. */
  directory: string;
  targets: string[];
  shown: string;
}

/** As cp(1): into a directory, or one path to a new name. @throws 66, 73 if something has that name */
function planPlaces(cwd: string, paths: readonly string[], destination: string): Places {
  const place = resolve(cwd, destination);
  const stats = statSync(place, { throwIfNoEntry: false });
  const isDirectory = stats?.isDirectory() === true;
  if (!isDirectory && (paths.length > 1 || destination.endsWith("/")))
    throw new VmError("noInput", `no such directory: ${plain(place)}`, {
      hint: `the last word is the destination; create the directory: mkdir ${shellQuote(place)}`,
    });
  const directory = isDirectory ? place : dirname(place);
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new VmError("noInput", `no such directory: ${plain(directory)}`, {
      hint: `create it: mkdir ${shellQuote(directory)}`,
    });
  const targets = paths.map((path) => (isDirectory ? join(place, nameOf(path)) : place));
  for (const [index, target] of targets.entries()) {
    if (targets.indexOf(target) !== index)
      throw usageError(
        `two paths would become ${plain(target)}`,
        "get them one by one, each with a DEST of its own",
      );
    requireFree(target);
  }
  return { directory, targets, shown: isDirectory ? place : targets[0]! };
}

function requireFree(target: string): void {
  if (lstatOf(target))
    throw new VmError("cannotCreate", `cannot create ${plain(target)}: it exists`, {
      hint: "the last word is the destination; give another one, or move the file out of the way",
    });
}

/** @throws 64 for a root, which has no name */
function nameOf(path: string): string {
  const name = basename(path.replace(/^[^/]*:/, ""));
  if (hasBadBytes(name))
    throw usageError("the name of the file is not UTF-8", "give a new name as DEST: ./file");
  if (name !== "" && name !== "." && name !== "..") return name;
  throw usageError(`${path} has no name for its copy`, "give a new directory as DEST: ./root");
}

/** A directory is renamed into another one only by who may write to it. */
function moveIntoPlace(from: string, target: string): void {
  const stats = lstatSync(from);
  const isDirectory = stats.isDirectory();
  requireFree(target);
  if (isDirectory) chmodSync(from, 0o700);
  renameSync(from, target);
  if (isDirectory) chmodSync(target, stats.mode & 0o7777);
}

/** A file as it is, a directory as an archive. */
async function writeStream(archive: string, { dir, work }: Scratch, path: string): Promise<void> {
  const what = `cannot get ${plain(path)}`;
  const length = readCount(work, "archive");
  if (length !== undefined) {
    if (isTerminal(STDOUT))
      throw usageError(
        `${what}: it is a directory, and its archive is not for a terminal`,
        "name a directory as the last word, or unpack it: … - | tar -x",
      );
    if (length > statSync(archive).size) throw new VmError("io", `${what}: the archive is cut off`);
    truncateSync(archive, length);
    return sendFile(archive, what);
  }
  const into = join(dir, "file");
  mkdirSync(into, { mode: 0o700 });
  // It gets no name, so that neither its owner nor its mode matters.
  await extract(archive, into, ["--no-same-owner", "--no-same-permissions"], ["0"], what);
  const file = join(into, "0");
  if (lstatOf(file)?.isFile() !== true)
    throw new VmError("noInput", `${what}: it is no regular file or directory`);
  await sendFile(file, what);
}

/** To standard output; a terminal gets only text. */
async function sendFile(file: string, what: string): Promise<void> {
  if (!isTerminal(STDOUT)) {
    const result = await start(["cat", file], { stdout: STDOUT }).done;
    throwIfInterrupted();
    if (result.status === 0) return;
    if (saysClosedPipe(result)) throw closedPipe(what);
    throw new VmError("io", `${what}: cannot write to standard output`);
  }
  const writer = new JobLogWriter();
  const fd = openForReading(file);
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    for (let length = readSync(fd, chunk); length > 0; length = readSync(fd, chunk))
      await writer.write(chunk.subarray(0, length));
  } finally {
    closeSync(fd);
  }
}
