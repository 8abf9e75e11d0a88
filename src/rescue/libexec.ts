import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { isOurDirectory, ownedByUs } from "../lib/trust.ts";
import { lstatOf, readSmall, realPath, removeQuietly, writeNew } from "../store/files.ts";
import { BUNDLED_JOBS, JOB_FILES, RUNNER } from "./assets.ts";

/** In LIBEXEC. [compat] `rescue-stage3`: the autorun script for a rescue CD made by hand. */
const FILES: Record<string, string> = {
  ...Object.fromEntries(Object.entries(JOB_FILES).map(([name, text]) => [join("jobs", name), text])),
  "rescue-stage3": RUNNER,
};

/** Directory name with a checksum of the content: each version of the program uses its own. */
export const dataName = (): string =>
  `data-${createHash("sha256").update(JSON.stringify(FILES)).digest("hex").slice(0, 16)}`;

/** Directory of data files installed by a package, below its prefix. */
export const SYSTEM_LIBEXEC = "/usr/libexec/vm";

/**
 * Finds data files that were installed with the program, which a distribution may have changed: those of the
 * same prefix (`/opt/x/libexec/vm` for `/opt/x/bin/vm`), then the system's. Where others could change them
 * they count for nothing, as what the program carries is always at hand.
 * @param program the program's own path
 */
export function findInstalledLibexec(program: string, system = SYSTEM_LIBEXEC): string | undefined {
  return [join(dirname(program), "../libexec/vm"), system]
    .map(realPath)
    .find((place) => place !== undefined && isOurDirectory(join(place, "jobs")) && isComplete(place));
}

/** Those of an older version may lack a job. */
const isComplete = (place: string): boolean =>
  BUNDLED_JOBS.every((name) => lstatOf(join(place, "jobs", `${name}.job`))?.isFile());

/** Data files of the program in a real directory. A temporary one is removed on disposal. */
export interface Libexec extends Disposable {
  path: string;
}

/**
 * Unpacks the data files if they are not unpacked yet.
 * @param wanted where they are to be
 * @param tmpdir where they go, privately and for this run, when that cannot be
 */
export function unpackLibexec(wanted: string, tmpdir: string): Libexec {
  try {
    if (!isWhole(wanted)) {
      mkdirSync(join(wanted, ".."), { recursive: true, mode: 0o700 });
      const beside = `${wanted}.${process.pid}`;
      removeQuietly(beside);
      writeFiles(beside);
      removeQuietly(wanted);
      renameSync(beside, wanted);
    }
    return { path: wanted, [Symbol.dispose]: () => {} };
  } catch {
    // No home directory, a read-only one, or no space.
    const path = mkdtempSync(join(tmpdir, "vm-data-"));
    writeFiles(path);
    return { path, [Symbol.dispose]: () => removeQuietly(path) };
  }
}

function writeFiles(directory: string): void {
  mkdirSync(join(directory, "jobs"), { recursive: true, mode: 0o700 });
  for (const [name, text] of Object.entries(FILES)) writeNew(join(directory, name), text);
}

/** Do they exist unchanged, and not writable by other users? */
function isWhole(directory: string): boolean {
  const stats = lstatOf(directory);
  if (!stats?.isDirectory() || !ownedByUs(stats) || (stats.mode & 0o022) !== 0) return false;
  return Object.entries(FILES).every(([name, text]) => readSmall(join(directory, name)) === text);
}
