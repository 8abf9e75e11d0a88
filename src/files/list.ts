import { closeSync, readSync, truncateSync } from "node:fs";
import { basename, join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { toJson } from "../lib/json.ts";
import { commandLine } from "../lib/command-line.ts";
import { openForReading } from "../lib/read-file.ts";
import { formatSize } from "../lib/size.ts";
import { formatTable } from "../lib/table.ts";
import { plain } from "../lib/text.ts";
import { exec } from "../process/exec.ts";
import { removeQuietly } from "../store/files.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { detached, openScratch, openSnapshotDisks, type Scratch } from "./disks.ts";
import { encodePath } from "./escaped-path.ts";
import {
  entryToJson,
  escapeName,
  formatEntry,
  MAX_RECORD_BYTES,
  readListing,
  readVolumes,
} from "./listing.ts";
import type { ListRequest } from "./request.ts";
import {
  createResult,
  MAX_LISTING_BYTES,
  readAnswer,
  readCount,
  requireAll,
  runFilesJob,
  type FilesOperation,
} from "./run.ts";
import { listingOf, withSnapshot, type SnapshotPlace } from "./snapshot.ts";

const RESULT = "result.raw";
const SORTED = "sorted";
/** Text that is printed at once. */
const PIECE_BYTES = 1 << 16;

interface ListJob {
  operation: FilesOperation;
  paths: readonly string[];
  oneLevel?: boolean;
  partial?: boolean;
}

/** Has the rescue list files of a snapshot. @returns the path of the sorted listing, in the scratch directory */
export async function listInRescue(
  context: Context,
  vm: Vm,
  place: SnapshotPlace,
  scratch: Scratch,
  listed: ListJob,
): Promise<string> {
  const { snapshot, hostdir } = place;
  const { dir, work } = scratch;
  const cannot = `cannot list the files of ${snapshot.name}`;
  const disks = await openSnapshotDisks(context, hostdir, snapshot, scratch);
  const result = join(dir, RESULT);
  createResult(result, MAX_LISTING_BYTES);
  const listing = listed.paths.length > 0 ? listingOf(place) : undefined;
  const job = { ...listed, disks, result, cannot, listing, keyFile: place.keyFile };
  await runFilesJob(context, detached(vm, work), work, job);
  const length = readCount(work, "length");
  if (length === undefined || length > MAX_LISTING_BYTES)
    throw new VmError("io", `${cannot}: the rescue has not said how long the listing is`);
  truncateSync(result, isCut(work) ? wholeLength(result, length) : length);
  if (listed.operation === "volumes") return result;
  const sorted = join(dir, SORTED);
  await exec(["sort", "-z", "-T", dir, "-o", sorted, result], { what: `${cannot}: cannot sort them` });
  removeQuietly(result);
  return sorted;
}

/** Prints the files of a snapshot, or without a path its filesystems. */
export async function listFiles(context: Context, request: ListRequest): Promise<void> {
  const { path, recursive, json } = request;
  await withSnapshot(context, request, "list files of a snapshot", async (vm, place) => {
    using scratch = openScratch(context, vm);
    if (path === undefined) {
      const file = await listInRescue(context, vm, place, scratch, {
        operation: "volumes",
        paths: [],
      });
      printVolumes(context, file, json);
      return;
    }
    const listed = { operation: "list", paths: [path], oneLevel: !recursive, partial: true } as const;
    const file = await listInRescue(context, vm, place, scratch, listed);
    const name = basename(path) || "/";
    const shown = escapeName(encodePath(name));
    const count = printItems(context, readListing(file), json, {
      toLine: (entry) => formatEntry(entry, shown),
      toFacts: (entry) => entryToJson(entry, encodePath(name)),
    });
    const cannot = `cannot list all files of ${place.snapshot.name}`;
    if (isCut(scratch.work)) throw cutListing(place, request, cannot, count);
    requireAll(scratch.work, cannot);
  });
}

/** Other directories of it may be listed in time. */
function cutListing(place: SnapshotPlace, request: ListRequest, cannot: string, count: number): VmError {
  const { path = "/", recursive } = request;
  const choice = [...(place.remote ? ["--remote"] : []), place.snapshot.name, path];
  const again = ["snapshots", "ls", ...choice, ...(recursive ? ["--recursive"] : [])];
  const parts = `see its directories, and list one of them: ${listingOf(place)(path)}\n`;
  return new VmError("timeout", `${cannot}: time limit reached after ${count} entries, the rest is missing`, {
    hint: `${recursive ? parts : ""}allow more time: ${commandLine("--timeout=3600", ...again)}`,
  });
}

/** Has the rescue left out what it did not find in time? */
const isCut = (work: Workdir): boolean => readAnswer(work, "cut") !== undefined;

/** Up to the end of a record: the last one is cut off. */
function wholeLength(path: string, length: number): number {
  const tail = Buffer.alloc(Math.min(length, MAX_RECORD_BYTES));
  const fd = openForReading(path);
  try {
    readSync(fd, tail, 0, tail.length, length - tail.length);
  } finally {
    closeSync(fd);
  }
  return length - tail.length + tail.lastIndexOf(0) + 1;
}

/** Prints items while they are read: a line each, or as elements of a JSON array. @returns how many */
export function printItems<T>(
  context: Context,
  items: Iterable<T>,
  json: boolean,
  { toLine, toFacts }: { toLine: (item: T) => string; toFacts: (item: T) => unknown },
): number {
  let piece = json ? "[" : "";
  let between = "";
  let count = 0;
  for (const item of items) {
    count++;
    piece += json ? `${between}\n${toJson(toFacts(item)).trimEnd()}` : `${toLine(item)}\n`;
    between = ",";
    if (piece.length < PIECE_BYTES) continue;
    context.print(piece);
    piece = "";
  }
  if (json) piece += between === "" ? "]\n" : "\n]\n";
  if (piece !== "") context.print(piece);
  return count;
}

function printVolumes(context: Context, file: string, json: boolean): void {
  const volumes = [...readVolumes(file)];
  if (json) {
    const items = volumes.map(([name, type, bytes, mounted]) => ({
      name,
      type,
      bytes,
      mounted: mounted || null,
    }));
    return context.print(toJson(items));
  }
  const rows = volumes.map(([name, type, bytes, mounted]) => [
    `${plain(name)}:/`,
    plain(type),
    formatSize(bytes),
    plain(mounted),
  ]);
  context.print(formatTable([["FILESYSTEM", "TYPE", "SIZE", "IN THE GUEST"], ...rows]));
}
