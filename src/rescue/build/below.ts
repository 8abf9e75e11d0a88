import { isAbsolute, join, sep } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { readNamed, realPath } from "../../lib/read-file.ts";
import { statSync } from "node:fs";

/** Is a resolved path a directory, or below it? */
export const isBelow = (path: string, top: string): boolean =>
  top === "/" || path === top || path.startsWith(top + sep);

/**
 * Resolves a file name from a list in a directory of unknown origin: the file must be inside.
 * @param top limit for symlinks: the directory given by the user, or `/` for this host
 * @returns the resolved path, undefined if it does not exist
 * @throws VmError 74 for a name that points outside, or anything but a regular file
 */
export function findBelow(directory: string, name: string, top: string): string | undefined {
  const path = join(directory, name);
  const refuse = (why: string): VmError =>
    new VmError("io", `cannot use ${directory}: ${name} ${why}`, { hint: "unpack the package again" });
  if (isAbsolute(name) || name.split("/").includes("..")) throw refuse("is not a path below it");
  const real = realPath(path);
  if (real === undefined) return undefined;
  if (!isBelow(real, top)) throw refuse(`resolves to ${real}, outside of ${top}`);
  if (!statSync(real).isFile()) throw refuse("is not a regular file");
  return real;
}

/** The largest list of a kernel is modules.builtin.modinfo, about 100 KiB. */
const MAX_LIST_BYTES = 64 << 20;

/** The text of such a file; empty if there is none. @throws as `findBelow` */
export function readBelow(directory: string, name: string, top: string): string {
  const real = findBelow(directory, name, top);
  return real === undefined ? "" : readNamed(real, MAX_LIST_BYTES).toString();
}
