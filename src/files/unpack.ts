/** Archives of the rescue, in which a hostile filesystem may have taken over, unpacked on the host. */
import { lstatOf } from "../lib/read-file.ts";
import { exec, processFailure } from "../process/exec.ts";
import { join } from "node:path";

/** Names that the host's filesystem cannot have: tar leaves these files out, and unpacks the others. */
const UNUSABLE = /(File name too long|Invalid argument|Invalid or incomplete multibyte or wide character)$/;
/** What follows when that was a directory. */
const WITHIN = /No such file or directory$/;

/**
 * Unpacks an archive into an empty directory that only the caller can enter. GNU tar leaves `..` and absolute names out,
 * and creates symlinks that could lead outside at the end. Setuid and setgid bits of files are cleared, and devices, pipes
 * and sockets are removed, before anything gets its name.
 * @returns the members that this filesystem cannot have, as tar names them
 */
export async function unpackArchive(
  archive: string,
  into: string,
  count: number,
  what: string,
): Promise<string[]> {
  const owner = process.geteuid!() === 0 ? "--same-owner" : "--no-same-owner";
  const members = Array.from({ length: count }, (_, index) => String(index));
  const refused = await extract(archive, into, [owner, "-p"], members, what);
  // Relative, as an absolute path may be too long.
  const found = members.filter((name) => lstatOf(join(into, name)));
  const find = (...words: string[]): Promise<unknown> =>
    exec(["find", ...found, "-xdev", ...words], { what, cwd: into });
  if (found.length === 0) return refused;
  await find("(", ...["b", "c", "p", "s"].flatMap((type) => ["-o", "-type", type]).slice(1), ")", "-delete");
  await find("-type", "f", "-perm", "/6000", "-exec", "chmod", "ug-s", "{}", "+");
  return refused;
}

/** @returns as above @throws 73 or 74 if tar fails for another reason */
export async function extract(
  archive: string,
  into: string,
  options: readonly string[],
  members: readonly string[],
  what: string,
): Promise<string[]> {
  // Without --no-unquote GNU tar takes a backslash in the name of the directory as an escape.
  const fixed = ["--no-unquote", "--numeric-owner", "-C", into, "-f", archive];
  const argv = ["tar", "-x", ...options, ...fixed, "--", ...members];
  const result = await exec(argv, { what, anyStatus: true });
  if (result.status === 0) return [];
  const refused = parseRefused(result.stderr);
  if (!refused) throw processFailure(what, result);
  return refused;
}

/** Pure: the members that tar could not create because of their names; undefined if it complained of anything else. */
export function parseRefused(stderr: string): string[] | undefined {
  const refused: string[] = [];
  for (const line of stderr.split("\n")) {
    if (line === "" || /^\S*tar: Exiting with failure status/.test(line)) continue;
    const name = /^\S*tar: (\d+.*?): Cannot [a-z ]+( to '.*')?: /.exec(line)?.[1];
    if (name === undefined) return undefined;
    if (UNUSABLE.test(line)) refused.push(name);
    else if (!WITHIN.test(line) || !refused.some((above) => name.startsWith(`${above}/`))) return undefined;
  }
  return refused.length > 0 ? refused : undefined;
}
