import { mkdirSync, rmdirSync, statSync } from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
import { commandLineFor, programLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { isOwnName, MAX_OWN_NAME_BYTES, plain, quoteLine } from "../lib/text.ts";
import { callerUid, foreignReason } from "../lib/trust.ts";
import { fileError, listDirectory } from "../store/files.ts";
import { HOST, PARTIAL } from "../store/layout.ts";
import type { Context } from "./context.ts";

/** Words of `import`. */
interface ImportWords {
  /** Absent: stdin. */
  file: string | undefined;
  directory: string | undefined;
}

/**
 * The directory for an imported VM: as typed, else one with the VM's name in the current directory.
 * @param guest the VM's name in what is imported: any text
 * @throws 74 if that is not the name of a directory
 */
export function chooseDirectory(
  { options }: Pick<Context, "options">,
  { file, directory }: ImportWords,
  guest: string,
): string {
  const typed = directory ?? options.hostdir;
  if (typed !== undefined) return typed;
  if (isOwnName(guest) && plain(guest) === guest) return guest;
  const problem = guest === "" ? "the VM has no name" : `'${quoteLine(guest)}' cannot be a directory's name`;
  throw new VmError("io", `cannot import: ${problem}`, {
    hint: `name the directory: ${programLine("import", file ?? "-", "DIR")}`,
  });
}

/**
 * The absolute path of a new VM's directory, symlinks resolved.
 * @param what is to be done, for the error message
 * @param within directories that it must not be in: those of the VM itself, HOSTDIR first
 * @param continues is what there is in it an interrupted command's, which continues?
 * @throws 64 for a name that no VM can have, 66 without its parent directory, 73 if it exists and is not empty
 */
export function resolveDestination(
  what: string,
  typed: string,
  cwd: string,
  within: readonly string[],
  continues: (hostdir: string) => boolean = () => false,
): string {
  const path = resolve(cwd, typed);
  const name = basename(path);
  if (!isOwnName(name))
    throw new VmError("usage", `cannot ${what}: '${plain(name)}' cannot be a VM's name`, {
      hint: `use a name of at most ${MAX_OWN_NAME_BYTES} bytes without control characters that does not start with . or -`,
    });
  const outer = within.find((directory) => `${resolveExisting(path)}${sep}`.startsWith(directory + sep));
  if (outer !== undefined) {
    const own = within[0]!;
    const beside = join(dirname(own), name);
    throw new VmError("usage", `cannot ${what}: ${path} is in the directory of this VM`, {
      hint: `choose a directory beside it: ${shellQuote(lstatOf(beside) ? join(dirname(own), `${basename(own)}-2`) : beside)}`,
    });
  }
  const parent = realPath(dirname(path));
  if (parent === undefined || !statSync(parent).isDirectory())
    throw new VmError("noInput", `cannot ${what}: no such directory: ${dirname(path)}`, {
      hint: `create it: mkdir -p ${shellQuote(dirname(path))}`,
    });
  const hostdir = join(parent, name);
  refuseTakenDirectory(what, hostdir, continues);
  return hostdir;
}

/** A path with the symlinks of those of its directories that exist resolved. */
function resolveExisting(path: string): string {
  const parent = dirname(path);
  return join(realPath(parent) ?? (parent === path ? path : resolveExisting(parent)), basename(path));
}

/**
 * To be checked again under the lock of the directory: another command may have made a VM there since.
 * @throws 73 unless it does not exist, or has nothing but what a killed command left
 */
export function refuseTakenDirectory(
  what: string,
  hostdir: string,
  continues: (hostdir: string) => boolean = () => false,
): void {
  const stats = lstatOf(hostdir);
  if (!stats) return;
  const refuse = (reason: string): VmError =>
    new VmError("cannotCreate", `cannot ${what}: ${hostdir} ${reason}`, {
      hint: `choose another directory; show the VM there, if it is one: ${commandLineFor(hostdir, "status")}`,
    });
  if (!stats.isDirectory()) throw refuse("exists already");
  const foreign = stats.uid === callerUid() ? foreignReason(stats) : "belongs to another user";
  if (foreign !== undefined) throw refuse(foreign);
  if (
    listDirectory(hostdir).some((name) => !name.startsWith(PARTIAL) && name !== HOST.lock) &&
    !continues(hostdir)
  )
    throw refuse("exists already, and is not empty");
}

/** Creates the directory. @returns removes it again, if it was created and is empty @throws 73 */
export function makeDestination(what: string, hostdir: string): () => void {
  if (lstatOf(hostdir)) return () => {};
  try {
    mkdirSync(hostdir, { mode: 0o700 });
  } catch (error) {
    throw fileError(`cannot ${what}`, error);
  }
  return () => {
    try {
      rmdirSync(hostdir);
    } catch {
      // Another process put something into it.
    }
  };
}
