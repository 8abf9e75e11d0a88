import { defineCommand, type ArgDef, type CommandDef, type CommandMeta, type ParsedArgs } from "citty";
import type { Context } from "../vm/context.ts";

/** What `cli` hands to citty's `setup` and `run` of a command. */
export interface CommandData {
  context: Context;
  /** In `run`: what `setup` returned. */
  request?: unknown;
}

/** What a command changes for the later ones of its batch. */
export type ContextChange = Partial<Pick<Context, "options">>;

/** What completion offers for a value. */
export type ValueKind =
  | "assignment"
  | "clone"
  | "command"
  | "directory"
  | "disk"
  | "disk image"
  | "file"
  | "ISO image"
  | "job"
  | "key"
  | "setting"
  | "snapshot";

/** What citty has no words for. */
interface ArgFacts {
  /** All that it takes, or the words among that. */
  choices?: readonly string[];
  kind?: ValueKind;
  /** A positional: any number of words. An option: any number of times. The value is an array then. */
  many?: true;
  /** A positional: a word may be empty. */
  empty?: true;
  /** A positional: all words up to the end of the line, whatever they look like. */
  rest?: true;
}
export type CommandArg = ArgDef & ArgFacts;
type CommandArgs = Record<string, CommandArg>;

interface Definition<A extends CommandArgs, R> {
  meta: CommandMeta;
  args?: A;
  /**
   * Parses the words, for all commands of a batch before the first one runs. Absent: the request is the parsed words.
   * @throws 64
   */
  parse?: (args: ParsedArgs<A>, context: Context) => R | Promise<R>;
  run: (context: Context, request: R) => void | ContextChange | Promise<void | ContextChange>;
}

/** A command for citty. Its words are parsed once: citty's `setup` returns the request that `run` takes. */
export const define = <const A extends CommandArgs, R = ParsedArgs<A>>({
  meta,
  args,
  parse,
  run,
}: Definition<A, R>): CommandDef<A> =>
  defineCommand<A>({
    meta,
    ...(args && { args }),
    setup: (call) => parse?.(call.args, (call.data as CommandData).context) ?? call.args,
    run: ({ data }) => {
      const { context, request } = data as CommandData;
      return run(context, request as R);
    },
  });
