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

/**
 * Opens a snapshot under the VM's lock.
 * @param use the third argument: the directory whose `backups` has the snapshot
 */
export async function withSnapshot<T>(
  context: Context,
  { name }: SnapshotChoice,
  command: string,
  use: (vm: Vm, snapshot: Snapshot, hostdir: string) => Promise<T>,
): Promise<T> {
  return withVm(context, command, (vm) => use(vm, findSnapshot(vm.hostdir, name), vm.hostdir), {
    lenient: true,
  });
}
