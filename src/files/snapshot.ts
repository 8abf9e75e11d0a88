import { commandLine } from "../lib/command-line.ts";
import { LAST } from "../store/layout.ts";
import { canLockSnapshots, beginReading } from "../store/reading.ts";
import { fileError } from "../store/files.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";
import type { Context } from "../vm/context.ts";
import { findHostdir, readVm, type Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";
import { requireOwn } from "../vm/ownership.ts";

/** Which snapshot. */
export interface SnapshotChoice {
  name: string;
  /** In the repository SNAPSHOT_REPO. */
  remote: boolean;
  /** Opens its LUKS devices; absent: their passphrases are asked for. */
  keyFile?: string | undefined;
}

/** Where a snapshot is. */
export interface SnapshotPlace {
  snapshot: Snapshot;
  /** A directory whose `backups` has the snapshot and its parents. */
  hostdir: string;
  remote: boolean;
  keyFile?: string | undefined;
}

/** The command line that lists a directory of a snapshot, or without one its filesystems. */
export const listingOf =
  ({ snapshot, remote }: SnapshotPlace) =>
  (path?: string): string =>
    commandLine(
      "snapshots",
      "ls",
      ...(remote ? ["--remote"] : []),
      snapshot.name,
      ...(path === undefined ? [] : [path]),
    );

/**
 * Opens a snapshot to read it. The VM is not locked: it can run, and be backed up, meanwhile.
 * @throws 66 if it does not exist, 75 while it is being removed
 */
export async function withSnapshot<T>(
  context: Context,
  choice: SnapshotChoice,
  command: string,
  use: (vm: Vm, place: SnapshotPlace) => Promise<T>,
): Promise<T> {
  const hostdir = findHostdir(context);
  requireOwn(context, hostdir, command);
  const open = (vm: Vm): Promise<T> => withPlace(context, vm, choice, async (place) => use(vm, place));
  try {
    if (choice.remote || canLockSnapshots(hostdir))
      return await open(await readVm(context, hostdir, true, { lenient: true }));
  } catch (error) {
    throw error instanceof Error && "errno" in error ? fileError(`cannot ${command}`, error) : error;
  }
  return withVm(context, command, open, { lenient: true });
}

/** The same for one more snapshot of a VM that is open already. */
export async function withPlace<T>(
  context: Context,
  { hostdir }: Vm,
  { name, remote, keyFile }: SnapshotChoice,
  use: (place: SnapshotPlace) => Promise<T>,
): Promise<T> {
  if (!remote) {
    if (!canLockSnapshots(hostdir))
      return use({ snapshot: findSnapshot(hostdir, name), hostdir, remote, keyFile });
    using read = await beginReading(hostdir, name);
    return await use({ snapshot: read.snapshot, hostdir, remote, keyFile });
  }
  const { openInRepository } = await import("./remote.ts");
  await using files = await openInRepository(context, hostdir, name === LAST ? undefined : name);
  try {
    const snapshot = findSnapshot(files.hostdir, files.name);
    return await use({ snapshot, hostdir: files.hostdir, remote, keyFile });
  } catch (error) {
    throw files.problem() ?? error;
  }
}
