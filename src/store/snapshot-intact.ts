import { join } from "node:path";
import { beginStep } from "../lib/activity.ts";
import { VmError } from "../lib/errors.ts";
import { lstatOf } from "../lib/read-file.ts";
import { HOST, SNAPSHOT } from "./layout.ts";
import { findSnapshot, type Snapshot } from "./snapshots.ts";
import { compareSums } from "./checksums.ts";
import { followChain } from "./snapshot-chain.ts";

/** The snapshot of this name; undefined if there is none. @throws as `findSnapshot` for a bad name */
export const findBeside =
  (hostdir: string) =>
  (name: string): Snapshot | undefined =>
    lstatOf(join(hostdir, HOST.backups, name)) ? findSnapshot(hostdir, name) : undefined;

/** A snapshot and its parents, nearest first. */
export const chainOf = (hostdir: string, snapshot: Snapshot): Snapshot[] => [
  snapshot,
  ...followChain(snapshot, findBeside(hostdir)).parents,
];

interface IntactOptions {
  /** Start of the error message: `cannot merge into S1`. */
  cannot: string;
  hint: string;
  /** Compares only images of disks. */
  images?: boolean;
  low?: boolean;
}

/**
 * Verifies the checksums of snapshots before their contents are stored under new ones. Snapshots without checksums pass.
 * @throws 74 naming the first that is damaged
 */
export async function requireIntact(
  snapshots: readonly Snapshot[],
  { cannot, hint, images = false, low = false }: IntactOptions,
): Promise<void> {
  for (const { name, dir, manifest } of snapshots) {
    const sizes = new Map(manifest?.files.map(({ file, storedBytes }) => [file, storedBytes]));
    using _step = beginStep(() => `compare ${name} with its checksums`);
    const only = (file: string): boolean => !images || (sizes.has(file) && file.endsWith(SNAPSHOT.qcow2));
    const wrong = await compareSums(dir, { sizes, only, low });
    if (wrong.length > 0)
      throw new VmError("io", `${cannot}: ${name} is damaged: ${wrong.join("; ")}`, { hint });
  }
}
