import { LAST } from "../store/layout.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";

/** Which snapshot. */
export interface SnapshotChoice {
  name: string;
  /** In the repository SNAPSHOT_REPO. */
  remote: boolean;
}

/** Where a snapshot is. */
export interface SnapshotPlace {
  snapshot: Snapshot;
  /** A directory whose `backups` has the snapshot and its parents. */
  hostdir: string;
}

/**
 * Opens a snapshot under the VM's lock.
 * @throws 66 if it does not exist
 */
export async function withSnapshot<T>(
  context: Context,
  choice: SnapshotChoice,
  command: string,
  use: (vm: Vm, place: SnapshotPlace) => Promise<T>,
): Promise<T> {
  const open = (vm: Vm): Promise<T> => withPlace(context, vm, choice, async (place) => use(vm, place));
  return withVm(context, command, open, { lenient: true });
}

/** The same for one more snapshot of a VM that is locked already. */
export async function withPlace<T>(
  context: Context,
  { hostdir }: Vm,
  { name, remote }: SnapshotChoice,
  use: (place: SnapshotPlace) => Promise<T>,
): Promise<T> {
  if (!remote) return use({ snapshot: findSnapshot(hostdir, name), hostdir });
  const { openInRepository } = await import("./remote.ts");
  await using files = await openInRepository(context, hostdir, name === LAST ? undefined : name);
  return await use({ snapshot: findSnapshot(files.hostdir, files.name), hostdir: files.hostdir });
}
