/** Explains a refused word by facts of the filesystem; loaded only then. */
import { VmError } from "../lib/errors.ts";
import { NoVm } from "../store/no-vm.ts";
import type { Context } from "../vm/context.ts";
import { NoSuchIso } from "../vm/media.ts";
import { Surplus } from "./batch.ts";
import type { Invocation } from "./invocation.ts";
import { findNamedVm, hintForNamedVm } from "./named-vm.ts";
import { hintFor, hintForVm, UnknownCommand } from "./suggest.ts";

/** A line that was not understood: its word may be a VM's name. @returns the error, perhaps with a better hint */
export function explainLine(error: unknown, words: readonly string[], context: Context): unknown {
  if (error instanceof Surplus) {
    const hint = hintForNamedVm(error.word, error.others, context);
    return hint === undefined ? error : new VmError("usage", error.message, { hint });
  }
  if (!(error instanceof UnknownCommand)) return error;
  const named = findNamedVm(words.at(-1)!, context);
  if (named === undefined) return error;
  return new VmError("usage", error.message, { hint: hintForVm(error.word, context.prog, named) });
}

/** What stands where a CD image for `run` may stand, and is none: a mistyped command, or the name of a VM. */
export function explainWord(error: unknown, { words, implicit }: Invocation, context: Context): unknown {
  const [word] = words;
  if (!word) return error;
  if (!(error instanceof NoSuchIso || (implicit && error instanceof NoVm))) return error;
  const named = hintForNamedVm(word, ["run"], context);
  if (!implicit) return named === undefined ? error : new VmError(error.code, error.message, { hint: named });
  return new VmError("noInput", `'${word}' is neither a command nor a CD image that exists`, {
    hint: named ?? hintFor(word, context.prog),
  });
}
