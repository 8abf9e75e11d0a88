import { mkdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { ownedByUs } from "../lib/trust.ts";
import { findProgram } from "../process/exec.ts";
import { listDirectory, removeQuietly, writeNew } from "../store/files.ts";
import { lstatOf } from "../lib/read-file.ts";
import { sha256 } from "../lib/crypto.ts";

/** What a saved state depends on, besides the argument list. */
export interface WarmKey {
  /** Name of the profile, which has one state at a time. */
  profile: string;
  argv: readonly string[];
  qemuVersion: string;
  /** Kernel and initramfs. */
  files: readonly string[];
}

const fileIdentityOf = (path: string): string => {
  const { size, mtimeMs, ino } = statSync(realpathSync(path));
  return `${path} ${size} ${mtimeMs} ${ino}`;
};

/** The guest's processor features depend on those of the host. */
const processor = (): string =>
  readFileSync("/proc/cpuinfo", "utf8")
    .split("\n\n")[0]!
    .split("\n")
    .filter((line) => /^(vendor_id|cpu family|model|stepping|microcode|flags)/.test(line))
    .join("\n");

/** Checksum of them. */
export const sumProcessor = (): string => sha256(processor()).slice(0, 32);

/** File name with a checksum of all dependencies: if one changes, another state is made. */
export function stateName({ profile, argv, qemuVersion, files }: WarmKey): string {
  const program = findProgram(argv[0]!) ?? argv[0]!;
  const facts = [qemuVersion, fileIdentityOf(program), ...argv, ...files.map(fileIdentityOf), processor()];
  const hash = sha256(JSON.stringify(facts)).slice(0, 32);
  return `${profile}.${hash}`;
}

/** Requires a state to be written by this user: it is the memory of a machine with access to the guest's disks. */
export function isTrusted(path: string): boolean {
  const stats = lstatOf(path);
  return stats !== undefined && stats.isFile() && ownedByUs(stats) && (stats.mode & 0o077) === 0;
}

/** Time before a state that could not be made or used is tried again. */
const GIVEN_UP_MS = 24 * 3600 * 1000;
const FAILED = ".failed";

export function hasFailed(state: string): boolean {
  const stats = lstatOf(state + FAILED);
  return stats !== undefined && Date.now() - stats.mtimeMs < GIVEN_UP_MS;
}

/** Records that a state does not work on this host, and removes it. Best effort. */
export function giveUp(state: string): void {
  removeQuietly(state);
  try {
    removeQuietly(state + FAILED);
    writeNew(state + FAILED, "");
  } catch {
    // It will be tried again.
  }
}

/** Private directory of states. */
export function stateDirectory(cache: string): string {
  const directory = join(cache, "warm");
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return directory;
}

/** Removes the profile's other states. */
export function removeOthers(directory: string, profile: string, keep: string): void {
  for (const name of listDirectory(directory))
    if (
      !name.startsWith(keep) &&
      name.startsWith(`${profile}.`) &&
      /^\.[0-9a-f]{32}(\.failed)?$/.test(name.slice(profile.length))
    )
      removeQuietly(join(directory, name));
}
