import { readlinkSync } from "node:fs";
import { dirname } from "node:path";
import { VmError } from "../lib/errors.ts";
import { fileKindOf, lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "./files.ts";
import { isDiskName } from "./layout.ts";

/**
 * Requires a working disk to be a regular file in WORKDIR.
 * @param path absolute; a missing file is no error here
 * @throws 74 for a symlink, or any other kind of file
 */
export function requireRegularDisk(path: string): void {
  const stats = lstatOf(path);
  if (!stats || stats.isFile()) return;
  const what = stats.isSymbolicLink() ? `a symbolic link to ${readlinkSync(path)}` : fileKindOf(stats);
  throw new VmError("io", `cannot use the disk ${path}: it is ${what}`, {
    hint: `replace it with a regular file in ${dirname(path)}; for larger storage set TMPDIR, use --inplace in a directory there, or set IMAGES to the full path`,
  });
}

/** The VM's own disks, in order. */
export function ownDisks(directory: string): string[] {
  return listDirectory(directory)
    .filter(isDiskName)
    .toSorted((a, b) => Number(a.replace(/\D/g, "")) - Number(b.replace(/\D/g, "")));
}
