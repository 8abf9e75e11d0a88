import { fileError } from "../store/files.ts";
import { beginReading, canLockSnapshots, type ReadSnapshot } from "../store/reading.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";
import type { Context } from "./context.ts";
import { findHostdir } from "./find.ts";
import { withVmToRead } from "./open.ts";

/**
 * Opens snapshots to read them. The VM is not locked, and can run and be backed up meanwhile, unless its filesystem cannot
 * lock directories.
 * @throws 66 if one does not exist, 75 while it is being changed
 */
export async function withSnapshotsToRead<T>(
  context: Context,
  names: readonly string[],
  command: string,
  use: (hostdir: string, snapshots: Snapshot[]) => Promise<T>,
): Promise<T> {
  const hostdir = findHostdir(context);
  const open: ReadSnapshot[] = [];
  try {
    if (canLockSnapshots(hostdir)) {
      for (const name of names) open.push(await beginReading(hostdir, name));
      return await use(
        hostdir,
        open.map(({ snapshot }) => snapshot),
      );
    }
  } catch (error) {
    throw error instanceof Error && "errno" in error ? fileError(`cannot ${command}`, error) : error;
  } finally {
    for (const read of open) read[Symbol.dispose]();
  }
  return withVmToRead(context, command, (vm) =>
    use(
      vm.hostdir,
      names.map((name) => findSnapshot(vm.hostdir, name)),
    ),
  );
}
