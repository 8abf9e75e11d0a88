import { chmodSync, closeSync, lstatSync, mkdirSync, readSync, renameSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { JobLogWriter } from "../job/output.ts";
import { commandLine } from "../lib/command-line.ts";
import { usageError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf, openForReading } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { STDOUT } from "../lib/standard-streams.ts";
import { counted, plain } from "../lib/text.ts";
import { exec, isBusybox, requireProgram, start } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { isTerminal } from "../process/terminal.ts";
import { allocatedBytes, fileError, requireSpace } from "../store/files.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { detached, openScratch, openSnapshotDisks, type Scratch } from "./disks.ts";
import { openPartial } from "./partial.ts";
import type { GetRequest } from "./request.ts";
import { createResult, readCount, runFilesJob } from "./run.ts";
import { withSnapshot, type SnapshotPlace } from "./snapshot.ts";

const STREAM = "-";
const ARCHIVE = "result.raw";
const CHUNK_BYTES = 1 << 16;

/** Copies files of a snapshot to the host. */
export async function getFiles(context: Context, request: GetRequest): Promise<void> {
  const { name, paths, destination } = request;
  requireGnuTar();
  const places = destination === STREAM ? undefined : planPlaces(context.cwd, paths, destination);
  await withSnapshot(context, request, "get files of a snapshot", async (vm, place) => {
    using scratch = openScratch(context, vm);
    const archive = await packFiles(context, vm, place, scratch, paths);
    const cannot = `cannot get files of ${place.snapshot.name}`;
    try {
      if (!places) return await writeStream(archive, join(scratch.dir, "file"), paths[0]!);
      using partial = openPartial(places.directory);
      const needed = allocatedBytes(statSync(archive));
      requireSpace(places.directory, needed, `get files of ${name}`, "tmpdir");
      await unpackArchive(archive, partial.path, paths.length, cannot);
      throwIfInterrupted();
      places.targets.forEach((target, index) => moveIntoPlace(join(partial.path, String(index)), target));
    } catch (error) {
      throw fileError(cannot, error);
    }
    const skipped = readCount(scratch.work, "skipped") ?? 0;
    if (skipped > 0) log.warn(`${counted(skipped, "device node")} or sockets were left out`);
    log.success(`copied ${counted(paths.length, "path")} of ${place.snapshot.name} to ${places.shown}`);
  });
}

/** Has the rescue put files into a tar archive, as members `0`, `1` …. @returns its path */
export async function packFiles(
  context: Context,
  vm: Vm,
  { snapshot, hostdir }: SnapshotPlace,
  scratch: Scratch,
  paths: readonly string[],
  everything = false,
): Promise<string> {
  const disks = await openSnapshotDisks(context, hostdir, snapshot, scratch);
  const { dir, work } = scratch;
  const result = join(dir, ARCHIVE);
  createResult(result);
  await runFilesJob(context, detached(vm, work), work, {
    operation: everything ? "pack-all" : "pack",
    paths,
    disks,
    result,
    cannot: `cannot read files of ${snapshot.name}`,
    hint: `list its filesystems: ${commandLine("snapshots", "ls", snapshot.name)}`,
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
  if (name !== "" && name !== "." && name !== "..") return name;
  throw usageError(`${path} has no name for its copy`, "give a new directory as DEST: ./root");
}

/**
 * Unpacks an untrusted archive into an empty directory that only the caller can enter. GNU tar leaves `..` and absolute
 * names out, and creates symlinks that could lead outside at the end. Setuid and setgid bits of files are cleared, and
 * device nodes are removed, before anything gets its name.
 */
async function unpackArchive(archive: string, into: string, count: number, what: string): Promise<void> {
  const owner = process.geteuid!() === 0 ? "--same-owner" : "--no-same-owner";
  const members = Array.from({ length: count }, (_, index) => String(index));
  await extract(archive, into, [owner, "-p"], members, what);
  const find = (...words: string[]): Promise<unknown> => exec(["find", into, "-xdev", ...words], { what });
  if (process.geteuid!() === 0) await find("(", "-type", "b", "-o", "-type", "c", ")", "-delete");
  await find("-type", "f", "-perm", "/6000", "-exec", "chmod", "ug-s", "{}", "+");
}

async function extract(
  archive: string,
  into: string,
  options: readonly string[],
  members: readonly string[],
  what: string,
): Promise<void> {
  const argv = ["tar", "-x", ...options, "--numeric-owner", "-C", into, "-f", archive, "--", ...members];
  await exec(argv, { what });
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

async function writeStream(archive: string, into: string, path: string): Promise<void> {
  mkdirSync(into, { mode: 0o700 });
  const what = `cannot get ${plain(path)}`;
  // It gets no name, so that neither its owner nor its mode matters.
  await extract(archive, into, ["--no-same-owner", "--no-same-permissions"], ["0"], what);
  const file = join(into, "0");
  if (!lstatSync(file).isFile())
    throw new VmError("noInput", `${what}: it is no regular file`, {
      hint: "name a directory as the last word",
    });
  if (!isTerminal(STDOUT)) {
    const { status, signal } = await start(["cat", file], { stdout: STDOUT }).done;
    throwIfInterrupted();
    if (status === 0 || signal === "SIGPIPE") return;
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
