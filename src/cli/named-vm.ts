import { join } from "node:path";
import { isPlainName } from "../lib/text.ts";
import type { Context } from "../services/context.ts";
import { hasVm } from "../services/no-vm.ts";
import { lstatOf } from "../store/files.ts";
import { lineOf } from "./suggest.ts";

/**
 * Other programs of this kind name a VM behind the verb; here it is the directory that names it.
 * @param word what stood behind the verb
 * @param words the line without it
 * @returns a hint with the line that means this VM, where there is one of that name
 */
export function hintForNamedVm(
  word: string,
  words: readonly string[],
  { prog, home, cwd, profiles }: Context,
): string | undefined {
  if (!isPlainName(word) || word.startsWith("-")) return undefined;
  const homes = [profiles ?? join(home, prog), cwd].map((directory) => join(directory, word));
  const found = homes.find((directory) => lstatOf(directory)?.isDirectory() === true && hasVm(directory));
  return found === undefined ? undefined : `the VM in ${found}: ${lineOf(prog, ["-d", found, ...words])}`;
}
