import { findSnapshot } from "../store/snapshots.ts";
import type { Context } from "../vm/context.ts";
import { openScratch } from "./disks.ts";
import { encodePath } from "./escaped-path.ts";
import { listInRescue, printItems } from "./list.ts";
import { compareEntries, entryToJson, escapeName, readListing, type FileEntry } from "./listing.ts";
import type { DiffRequest } from "./request.ts";
import { requireAll } from "./run.ts";
import { withPlace, withSnapshot } from "./snapshot.ts";

/** Added, modified, deleted, of another type, touched: the same but for its time. */
type FileChange = "A" | "M" | "D" | "T" | "t";

/** Prints which files differ between two snapshots. */
export async function diffFiles(context: Context, request: DiffRequest): Promise<void> {
  const { from, to, path, json, checksum } = request;
  const shown = (entry: FileEntry): string => escapeName(joinGuestPath(path, entry.path));
  await withSnapshot(context, { ...request, name: from }, "compare files of snapshots", async (vm, place) => {
    // Before the rescue is started for the first one.
    if (!request.remote) findSnapshot(vm.hostdir, to);
    const listed = { operation: checksum ? "sums" : "list", paths: [path] } as const;
    using before = openScratch(context, vm);
    const a = await listInRescue(context, vm, place, before, listed);
    using after = openScratch(context, vm);
    const b = await withPlace(
      context,
      vm,
      { name: to, remote: request.remote, keyFile: request.keyFile },
      (other) => listInRescue(context, vm, other, after, listed),
    );
    printItems(context, mergeListings(readListing(a), readListing(b)), json, {
      toLine: ([change, old, now]) => `${change}  ${shown((now ?? old)!)}`,
      toFacts: ([change, old, now]) => ({
        change,
        ...(old && { from: entryToJson(old) }),
        ...(now && { to: entryToJson(now) }),
      }),
    });
    for (const { work } of [before, after]) requireAll(work, "cannot compare all files");
  });
}

/** @param below as in an entry; empty: the path itself */
const joinGuestPath = (path: string, below: Buffer): Buffer =>
  below.length === 0 ? encodePath(path) : Buffer.concat([encodePath(path.replace(/\/*$/, "/")), below]);

/** Pure: the differences of two sorted listings, in their order. */
export function* mergeListings(
  before: Iterable<FileEntry>,
  after: Iterable<FileEntry>,
): Generator<[change: FileChange, old: FileEntry | undefined, now: FileEntry | undefined]> {
  const [a, b] = [before[Symbol.iterator](), after[Symbol.iterator]()];
  let [old, now] = [a.next(), b.next()];
  while (!old.done || !now.done) {
    const order = old.done ? 1 : now.done ? -1 : compareEntries(old.value, now.value);
    if (order < 0) yield ["D", old.value as FileEntry, undefined];
    else if (order > 0) yield ["A", undefined, now.value as FileEntry];
    else {
      const change = compareEntry(old.value as FileEntry, now.value as FileEntry);
      if (change) yield [change, old.value as FileEntry, now.value as FileEntry];
    }
    if (order <= 0) old = a.next();
    if (order >= 0) now = b.next();
  }
}

/**
 * With checksums the contents decide, without them the size; with the same size and another time they may differ. Of a
 * directory neither counts: its entries are listed.
 */
function compareEntry(old: FileEntry, now: FileEntry): FileChange | undefined {
  if (old.type !== now.type) return "T";
  if (old.mode !== now.mode || old.uid !== now.uid || old.gid !== now.gid) return "M";
  if (old.target && now.target) return old.target.equals(now.target) ? undefined : "M";
  if (old.type !== "f") return undefined;
  if (old.size !== now.size) return "M";
  if (old.sum !== undefined && now.sum !== undefined) return old.sum === now.sum ? undefined : "M";
  return old.mtime === now.mtime ? undefined : "t";
}
