/** Errors for an unknown word, by what is on the filesystem. Loaded only for the error. */
import { VmError } from "../lib/errors.ts";
import { NoVm } from "../store/no-vm.ts";
import type { Context } from "../vm/context.ts";
import { NoSuchIso } from "../vm/media.ts";
import { Surplus } from "./batch.ts";
import type { Invocation } from "./invocation.ts";
import { findNamedVm, hintForNamedVm } from "./named-vm.ts";
import { hintFor, hintForVm, UnknownCommand } from "./suggest.ts";

/** For a command line that cannot be parsed: a word may be a VM's name. @returns the error, maybe with a better hint */
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

/** For a word in place of `run`'s CD image that is not one: a mistyped command, or a VM's name. */
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
