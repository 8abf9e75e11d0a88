import { join } from "node:path";
import { isPlainName } from "../lib/text.ts";
import type { Context } from "../vm/context.ts";
import { hasVm } from "../store/no-vm.ts";
import { lstatOf } from "../lib/read-file.ts";
import { formatLine } from "./suggest.ts";

/**
 * Other programs of this kind name a VM behind the verb; here its directory names it.
 * @param word what stood behind the verb
 * @returns the directory of the VM of that name, where there is one in PROFILES or the current directory
 */
export function findNamedVm(word: string, { prog, home, cwd, profiles }: Context): string | undefined {
  if (!isPlainName(word) || word.startsWith("-")) return undefined;
  const homes = [profiles ?? join(home, prog), cwd].map((directory) => join(directory, word));
  return homes.find((directory) => lstatOf(directory)?.isDirectory() === true && hasVm(directory));
}

/** A hint with the line that means this VM; undefined where there is none. @param words the line without its name */
export function hintForNamedVm(word: string, words: readonly string[], context: Context): string | undefined {
  const found = findNamedVm(word, context);
  if (found === undefined) return undefined;
  return `the VM in ${found}: ${formatLine(context.prog, ["-d", found, ...words])}`;
}
