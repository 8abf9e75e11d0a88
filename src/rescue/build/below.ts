import { isAbsolute, join, sep } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { readNamed, realPath } from "../../lib/read-file.ts";
import { statSync } from "node:fs";

/** Is a path without links a directory, or below it? */
export const isBelow = (path: string, top: string): boolean =>
  top === "/" || path === top || path.startsWith(top + sep);

/**
 * Where a file is that a list in a directory names. Such a directory may come from anywhere: what it names is below it.
 * @param top what links may lead to: the directory that was named, or `/` for this host's own
 * @returns the path without links, undefined where nothing is
 * @throws VmError 74 for a name that leads out, or anything but a regular file
 */
export function findBelow(directory: string, name: string, top: string): string | undefined {
  const path = join(directory, name);
  const refuse = (why: string): VmError =>
    new VmError("io", `cannot use ${directory}: ${name} ${why}`, { hint: "unpack the package anew" });
  if (isAbsolute(name) || name.split("/").includes("..")) throw refuse("is no path below it");
  const real = realPath(path);
  if (real === undefined) return undefined;
  if (!isBelow(real, top)) throw refuse(`resolves to ${real}, outside of ${top}`);
  if (!statSync(real).isFile()) throw refuse("is no regular file");
  return real;
}

/** Of a kernel's lists, modules.builtin.modinfo is the longest, with some 100 KiB. */
const MAX_LIST_BYTES = 64 << 20;

/** The text of such a file; empty where there is none. @throws as `findBelow` */
export function readBelow(directory: string, name: string, top: string): string {
  const real = findBelow(directory, name, top);
  return real === undefined ? "" : readNamed(real, MAX_LIST_BYTES).toString();
}
