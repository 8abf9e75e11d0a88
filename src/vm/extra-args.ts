import { dirname, join } from "node:path";
import { readArguments } from "../config/literal.ts";
import { VmError } from "../lib/errors.ts";
import { callerUid, distrust, findUserName } from "../lib/trust.ts";
import { lookupIn } from "../config/lookup.ts";
import { shellQuote } from "../lib/shell.ts";
import { lstatOf, readSmall, realPath } from "../lib/read-file.ts";
import { defaultsName } from "../store/layout.ts";
import type { Context } from "./context.ts";
import type { Vm } from "./find.ts";

/** A file of additional arguments for qemu, `PROG.defaults`. */
export interface ArgumentsFile {
  file: string;
  /** It is in HOSTDIR or WORKDIR. */
  ofVm: boolean;
}

/** The first file that exists. [compat] */
export function findExtraArgs(context: Context, { hostdir, work }: Vm): ArgumentsFile | undefined {
  const own = [...(work.state === "present" ? [work.dir] : []), hostdir];
  return [...own, join(context.home, ".config"), "/etc"]
    .map((directory) => ({
      file: join(directory, defaultsName(context.prog)),
      ofVm: own.includes(directory),
    }))
    .find(({ file }) => lstatOf(file) !== undefined);
}

/**
 * The arguments of `PROG.defaults`.
 * @throws 78 for a foreign file, whose arguments could make qemu start any program, and for one that cannot be parsed
 */
export function readExtraArgs(context: Context, vm: Vm): string[] {
  const found = findExtraArgs(context, vm);
  if (!found) return [];
  refuseForeignArgs(found);
  return parseExtraArgs(context, vm, found);
}

/** The same for display, without a check of the owner. */
export function parseExtraArgs(context: Context, vm: Vm, { file, ofVm }: ArgumentsFile): string[] {
  // The user's own file may be a symlink (dotfiles); one in a VM's directory may not.
  const text = readSmall(ofVm ? file : (realPath(file) ?? file)) ?? "";
  const known: Record<string, string> = {
    PROG: context.prog,
    HOSTDIR: vm.hostdir,
    WORKDIR: vm.work.state === "present" ? vm.work.dir : "",
    HOME: context.home,
  };
  const result = readArguments(text, lookupIn(vm.raw, known, context.env));
  if (result.kind === "values") return result.words;
  throw new VmError("config", `${file}:${result.line}: ${result.message}`, {
    hint: "write one or more arguments for qemu per line; quotes and $NAME are expanded, nothing is executed",
  });
}

function refuseForeignArgs({ file, ofVm }: ArgumentsFile): void {
  // A symlink in the VM's directory, or a dangling one, is refused when it is read.
  if (lstatOf(file)?.isSymbolicLink() && (ofVm || realPath(file) === undefined)) return;
  const reason = distrust(file);
  if (reason === undefined) return;
  throw new VmError("config", `refusing to use ${file}: ${reason}`, {
    hint: `inspect it, then make it yours: chown ${findUserName(callerUid())} ${shellQuote(file)}; chmod go-w ${shellQuote(file)} ${shellQuote(dirname(file))}`,
  });
}
