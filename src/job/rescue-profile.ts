import { renameSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { exec } from "../process/exec.ts";
import { exchange } from "../process/libc.ts";
import { remove } from "../store/remove.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { listDirectory, removeQuietly, syncDirectory } from "../store/files.ts";
import { PARTIAL, RESCUE } from "../store/layout.ts";
import { lockDirectory, type VmLock } from "../store/lock.ts";

/** A build from a CD takes a minute or two. */
const LOCK_MS = 600_000;

/** One build at a time in PROFILES: each removes leftovers of interrupted ones. @throws 75 after LOCK_MS */
export const lockProfiles = (profiles: string, name: string): Promise<VmLock> =>
  lockDirectory(profiles, {
    command: `build the rescue ${name}`,
    waitMs: LOCK_MS,
    busy: "another process is building a rescue",
  });

/** Name of the old profile while it is replaced on a filesystem without RENAME_EXCHANGE. */
const asideOf = (profiles: string, name: string): string => join(profiles, `${PARTIAL}${name}.before`);

/** Renames back a profile whose build was killed between the two renames. Called under the lock. */
export function recoverProfile(profiles: string, name: string): void {
  const aside = asideOf(profiles, name);
  if (!lstatOf(aside)) return;
  if (lstatOf(join(profiles, name))) remove(aside);
  else renameSync(aside, join(profiles, name));
}

/** Settings of an existing profile of the same kind. @throws 73 if another file or profile has the name */
export function keptSettings(directory: string, settings: string): string | undefined {
  if (!lstatOf(directory)) return undefined;
  const file = join(directory, RESCUE.guestEnv);
  const text = lstatOf(file)?.isFile() ? readSmall(file) : undefined;
  const lines = settings.split("\n").filter((line) => line.startsWith("RESCUE_"));
  if (text !== undefined && lines.every((line) => text.split("\n").includes(line))) return text;
  throw new VmError(
    "cannotCreate",
    `cannot build in ${directory}: it exists, and is another kind of rescue or no rescue`,
    {
      hint: "choose another name (--name=NAME, and --rescue=NAME for jobs), or move it out of the way",
    },
  );
}

/**
 * Replaces a profile atomically: a job finds the old files or the new ones, and a running one keeps its open files.
 * Other files of the old profile (the source of an ISO, say) are kept.
 * @param beside directory of the new profile, in PROFILES; renamed
 */
export async function replaceProfile(profiles: string, name: string, beside: string): Promise<void> {
  const directory = join(profiles, name);
  if (lstatOf(directory)) {
    const made = new Set(listDirectory(beside));
    // The old uncompressed kernel does not match the new kernel.
    if (made.has(RESCUE.kernel)) made.add(RESCUE.vmlinux);
    for (const other of listDirectory(directory).filter((item) => !made.has(item)))
      await carryOver(join(directory, other), join(beside, other));
    syncDirectory(beside);
    swap(directory, beside, asideOf(profiles, name));
  } else {
    syncDirectory(beside);
    renameSync(beside, directory);
  }
  syncDirectory(profiles);
}

/** The caller, or the next build, removes the old directory. */
function swap(directory: string, beside: string, aside: string): void {
  if (exchange(beside, directory)) return;
  renameSync(directory, aside);
  try {
    renameSync(beside, directory);
  } catch (error) {
    renameSync(aside, directory);
    throw error;
  }
  removeQuietly(aside);
}

/** Hard-links, or copies on a filesystem without hard links. */
async function carryOver(from: string, to: string): Promise<void> {
  const linked = await exec(["cp", "-a", "-l", "--", from, to], { anyStatus: true });
  if (linked.status === 0) return;
  remove(to);
  await exec(["cp", "-a", "--", from, to], { what: `cannot keep ${from}` });
}
