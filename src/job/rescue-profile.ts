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

/** One build at a time in PROFILES: each removes what an earlier one left behind. @throws 75 when it takes too long */
export const lockProfiles = (profiles: string, name: string): Promise<VmLock> =>
  lockDirectory(profiles, {
    command: `build the rescue ${name}`,
    waitMs: LOCK_MS,
    busy: "another process is building a rescue",
  });

/** Where a profile waits while a new one takes its place, where the file system cannot exchange two names. */
const asideOf = (profiles: string, name: string): string => join(profiles, `${PARTIAL}${name}.before`);

/** Puts back a profile whose build was killed between the two renames. Called under the lock. */
export function recoverProfile(profiles: string, name: string): void {
  const aside = asideOf(profiles, name);
  if (!lstatOf(aside)) return;
  if (lstatOf(join(profiles, name))) remove(aside);
  else renameSync(aside, join(profiles, name));
}

/** The settings of the profile that is there, if it is one of this kind. @throws 73 otherwise */
export function keptSettings(directory: string, settings: string): string | undefined {
  if (!lstatOf(directory)) return undefined;
  const file = join(directory, RESCUE.guestEnv);
  const text = lstatOf(file)?.isFile() ? readSmall(file) : undefined;
  const lines = settings.split("\n").filter((line) => line.startsWith("RESCUE_"));
  if (text !== undefined && lines.every((line) => text.split("\n").includes(line))) return text;
  throw new VmError("cannotCreate", `${directory} exists already and is something else`, {
    hint: "choose another name (--name=NAME, and --rescue=NAME for jobs), or move it away",
  });
}

/**
 * Puts a new profile in the place of an old one, whole: a job finds the old files or the new ones, and one that has
 * begun keeps those it has opened. Other files of the old one (an ISO's source, say) come along.
 * @param beside the new profile, in the same directory; gone afterwards
 */
export async function replaceProfile(profiles: string, name: string, beside: string): Promise<void> {
  const directory = join(profiles, name);
  if (lstatOf(directory)) {
    const made = new Set(listDirectory(beside));
    // One that could not be uncompressed this time must not meet the old one.
    if (made.has(RESCUE.kernel)) made.add(RESCUE.vmlinux);
    for (const other of listDirectory(directory).filter((item) => !made.has(item)))
      await takeAlong(join(directory, other), join(beside, other));
    syncDirectory(beside);
    swap(directory, beside, asideOf(profiles, name));
  } else {
    syncDirectory(beside);
    renameSync(beside, directory);
  }
  syncDirectory(profiles);
}

/** The old directory is removed by the caller, or by the next build: none of its files is needed any more. */
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

/** By hard links, which cost nothing; copied where there are none. */
async function takeAlong(from: string, to: string): Promise<void> {
  const linked = await exec(["cp", "-a", "-l", "--", from, to], { anyStatus: true });
  if (linked.status === 0) return;
  remove(to);
  await exec(["cp", "-a", "--", from, to], { what: `cannot keep ${from}` });
}
