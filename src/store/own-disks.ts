import { readlinkSync } from "node:fs";
import { dirname } from "node:path";
import { VmError } from "../lib/errors.ts";
import { fileKindOf, lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "./files.ts";
import { isDiskName } from "./layout.ts";

/**
 * A working disk is a regular file in WORKDIR, for all commands alike.
 * @param path absolute; nothing there is no error here
 * @throws 74 for a symbolic link, and for anything else
 */
export function requireRegularDisk(path: string): void {
  const stats = lstatOf(path);
  if (!stats || stats.isFile()) return;
  const what = stats.isSymbolicLink() ? `a symbolic link to ${readlinkSync(path)}` : fileKindOf(stats);
  throw new VmError("io", `cannot use the disk ${path}: it is ${what}`, {
    hint: `a working disk is a regular file in ${dirname(path)}; for larger storage set TMPDIR, use --inplace in a directory there, or name the image's full path in IMAGES`,
  });
}

/** The VM's own disks, in order. */
export function ownDisks(directory: string): string[] {
  return listDirectory(directory)
    .filter(isDiskName)
    .toSorted((a, b) => Number(a.replace(/\D/g, "")) - Number(b.replace(/\D/g, "")));
}
