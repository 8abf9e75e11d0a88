import { mkdirSync, mkdtempSync, renameSync } from "node:fs";
import { join } from "node:path";
import { ownedByUs } from "../lib/trust.ts";
import { removeQuietly, replaceVolatile } from "../store/files.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { LIBEXEC_FILES } from "./libexec-files.ts";

/** The program's data files in a real directory. Removed on disposal where it is for this run only. */
export interface Libexec extends Disposable {
  path: string;
}

/**
 * Unpacks the data files where that has not been done before.
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
    // No home, a read-only one, or no space left on it.
    const path = mkdtempSync(join(tmpdir, "vm-data-"));
    writeFiles(path);
    return { path, [Symbol.dispose]: () => removeQuietly(path) };
  }
}

/** Nothing is synced: each run compares them, see below. */
function writeFiles(directory: string): void {
  mkdirSync(join(directory, "jobs"), { recursive: true, mode: 0o700 });
  for (const [name, text] of Object.entries(LIBEXEC_FILES)) replaceVolatile(join(directory, name), text);
}

/** Are they as written, and writable by this user only? */
function isWhole(directory: string): boolean {
  const stats = lstatOf(directory);
  if (!stats?.isDirectory() || !ownedByUs(stats) || (stats.mode & 0o022) !== 0) return false;
  return Object.entries(LIBEXEC_FILES).every(([name, text]) => readSmall(join(directory, name)) === text);
}
