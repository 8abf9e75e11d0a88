import { chmodSync } from "node:fs";
import { join } from "node:path";
import { exec } from "../process/exec.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { syncFile } from "../store/files.ts";
import { STATE, workingPath } from "../store/layout.ts";
import type { StoredFile } from "../store/manifest.ts";
import type { Snapshot } from "../store/snapshots.ts";

/** The RAM in a snapshot that is stored as it is, so that a machine can map it; undefined if compressed, or without RAM. */
export const findRamFile = ({ manifest }: Snapshot): StoredFile | undefined =>
  manifest?.files.find(({ file }) => file === STATE.ram);

/**
 * Copies the RAM of a snapshot into new working files: the machine writes to the copy. Of the same blocks where the
 * filesystem can share them (ioctl_ficlonerange(2)), else without holes.
 * @throws 73 without space
 */
export async function copyRam(snapshot: Snapshot, dir: string): Promise<void> {
  const from = join(snapshot.dir, STATE.ram);
  const to = workingPath(dir, STATE.ram);
  await exec(["cp", "--reflink=auto", "--sparse=always", "--no-dereference", "--", from, to], {
    what: `cannot copy ${from}`,
  });
  throwIfInterrupted();
  chmodSync(to, 0o600);
  await syncFile(to);
}
