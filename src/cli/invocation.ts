import { VmError } from "../lib/errors.ts";
import { nearest } from "../lib/nearest.ts";
import { parseOptions, UnknownOption, wordsOfOption, type Occurrence } from "./getopt.ts";
import { GLOBAL_OPTIONS, type OptionSpec } from "./options.ts";
import type { Command, CommandOption } from "./command.ts";
import { COMMANDS, OLD_NAMES } from "./registry.ts";
import { labelBehind, refuseBadLabel } from "./selecting.ts";
import { usageOf } from "./signature.ts";
import { formatLine } from "./suggest.ts";

/** One command of a batch, checked. */
export interface Invocation {
  command: Command;
  /** In the order typed, for the announcement. */
  words: string[];
  /** Positional arguments and options by name, as citty's `run` takes them. */
  args: Record<string, string | boolean | string[]>;
  /** The words of a positional that takes the rest of the line: citty's `args._`. */
  rest: string[];
  /** `-h` after the command. */
  help: boolean;
  /** The command `run` is implied: a single word, taken as a CD image. */
  implicit: boolean;
  /** Global options after this command. */
  globals: Occurrence<OptionSpec>[];
  /** The words of the command without these, as they can be typed. */
  typed: string[];
}

/** Every command has it. */
export const HELP: CommandOption = { long: "help", short: "h", help: "show this help" };

/** `@name`, as opposed to a word that merely begins with `@` (`@MEDIA@/x.iso`). */
export const REFERENCE = /^@([a-z][a-z-]*)$/;

/** The name behind the `@` of a command. */
export const referenceOf = (word: string): string | undefined => REFERENCE.exec(word)?.[1];

export const isOldName = (word: string): boolean => (OLD_NAMES as readonly string[]).includes(word);

/** [compat] The old commands follow one another without `@`; behind a newer one, such a word is an argument: `list job`. */
export const endsArguments = (word: string, { name }: Command): boolean => isOldName(word) && isOldName(name);

const LABEL = GLOBAL_OPTIONS.find(({ effect }) => effect.kind === "label")!;

/** Free text may begin with a dash. */
export const FREE_TEXT = "description";

/** What the words of a batch stand in. */
export interface TypedLine {
  prog: string;
  /** The options before the first command, as typed. */
  before: readonly string[];
  words: readonly string[];
}

/** How many words an option takes that stands first, with its full name; 0 where none does. */
function spelledOut([word = "", next]: readonly string[], { options }: Command): number {
  const [, name, given] = /^--([a-z-]+)(=.*)?$/s.exec(word) ?? [];
  const option = [...options, ...GLOBAL_OPTIONS.filter(({ long }) => long !== HELP.long)].find(
    ({ long }) => long === name,
  );
  if (!option) return 0;
  return option.value !== undefined && given === undefined && next !== undefined ? 2 : 1;
}

/** Global options that may follow this command. */
export function globalsBehind(command: Command): readonly OptionSpec[] {
  if (!command.positionals.some((item) => item.rest)) return GLOBAL_OPTIONS;
  // What it starts has short options of its own: `ssh -p 22`.
  return GLOBAL_OPTIONS.map(({ short, ...option }) =>
    option.effect.kind === "hostdir" && short !== undefined ? { ...option, short } : option,
  );
}

/** The hint for an option that a command does not know. */
function optionHint(command: Command, spelling: string, typed: readonly string[], line: TypedLine): string {
  const { prog, before, words } = line;
  const at = words.length - typed.length;
  const help = `options of ${command.name}: ${prog} ${command.name} -h`;
  if (command.name === "ssh")
    return `put options of ssh after --: ${formatLine(prog, [...before, ...words.slice(0, at), "--", ...typed])}\n${help}`;
  // As of docker and podman.
  if (command.name === "exec" && (spelling === "-t" || spelling === "-i"))
    return `exec passes stdin on, and has no terminal; with one: ${formatLine(prog, ["ssh"])}, ${formatLine(prog, ["console"])}\n${help}`;
  const similar = nearest(
    spelling.slice(2),
    command.options.map(({ long }) => long),
  );
  const wrong = typed.findIndex((word) => word === spelling || word.startsWith(`${spelling}=`));
  if (!spelling.startsWith("--") || similar === undefined || wrong < 0) return help;
  const right = typed[wrong]!.replace(spelling, `--${similar}`);
  const retyped = words.with(at + wrong, right);
  return `did you mean: ${formatLine(prog, [...before, ...retyped])}\n${help}`;
}

/** Lists what a command's argument may be, which need not be given then. */
const LIST = "list";

/**
 * Parses one command and its words.
 * @param mayHaveLabels `@web` after it is a label, unless there is a command of that name
 * @returns the words that are left
 * @throws 64 for an unknown option, a missing or an empty argument
 */
export function parseInvocation(
  command: Command,
  words: readonly string[],
  line: TypedLine,
  mayHaveLabels = false,
): { invocation: Invocation; left: string[] } {
  const { prog } = line;
  const shapes: CommandOption[] = [...command.options, HELP];
  const behind = globalsBehind(command);
  const args: Invocation["args"] = {};
  const globals: Invocation["globals"] = [];
  const typed: string[] = [];
  const taken: string[] = [];
  let left = [...words];
  let remaining: string[] = [];
  let optionsOver = false;
  let help = false;
  const takeOptions = (given: readonly string[]): string[] => {
    const { found, rest } = readOptions(given);
    for (const occurrence of found) {
      const { option, value } = occurrence;
      if ("effect" in option) globals.push(occurrence as Occurrence<OptionSpec>);
      else if (option === HELP) help = true;
      else {
        args[option.long] = option.many
          ? [args[option.long] ?? [], value ?? []].flat().map(String)
          : (value ?? true);
        typed.push(...wordsOfOption(occurrence));
      }
    }
    return rest;
  };
  const readOptions = (
    given: readonly string[],
  ): ReturnType<typeof parseOptions<CommandOption, OptionSpec>> => {
    try {
      return parseOptions(given, shapes, `options of ${command.name}: ${prog} ${command.name} -h`, behind);
    } catch (error) {
      if (!(error instanceof UnknownOption)) throw error;
      throw new UnknownOption(error.spelling, optionHint(command, error.spelling, given, line));
    }
  };
  for (let index = 0; index <= command.positionals.length; index++) {
    const positional = command.positionals[index];
    if (!optionsOver && positional?.name !== FREE_TEXT) {
      const before = left;
      left = takeOptions(left);
      optionsOver = before[before.length - left.length - 1] === "--";
      if (optionsOver) typed.push("--");
    }
    // Free text may begin with a dash; but the full name of an option here is hardly meant as a description.
    if (!optionsOver && positional?.name === FREE_TEXT)
      for (let count = spelledOut(left, command); count > 0; count = spelledOut(left, command)) {
        takeOptions(left.slice(0, count));
        left = left.slice(count);
      }
    const label = mayHaveLabels && !optionsOver && !positional?.rest ? labelBehind(left[0]) : undefined;
    if (label !== undefined) {
      globals.push({ option: LABEL, spelling: `--${LABEL.long}`, value: label });
      left = left.slice(1);
      index--;
      continue;
    }
    if (mayHaveLabels && !optionsOver && !positional?.rest) refuseBadLabel(left[0], command.name);
    if (positional?.rest) {
      [remaining, left] = [left, []];
      typed.push(...remaining);
      break;
    }
    if (positional?.name === FREE_TEXT && left[0] === "--") {
      typed.push("--");
      left = left.slice(1);
    }
    const word = left[0];
    if (!positional || word === undefined) break;
    const reference = referenceOf(word);
    // Where there is no command of this name, our caller says so.
    if (reference !== undefined && (COMMANDS.has(reference) || !positional.required)) break;
    if (!positional.required && !optionsOver && endsArguments(word, command)) break;
    if (word === "" && positional.required) break;
    // [compat] To the old commands an empty word is an argument: no name, no ISO.
    if (word === "" && !positional.empty && !isOldName(command.name))
      throw new VmError("usage", `${command.name}: ${positional.label} is empty`, {
        hint: `usage: ${prog} ${usageOf(command)}`,
      });
    if (positional.many) {
      args[positional.name] = [args[positional.name] ?? []].flat().concat(word) as string[];
      index--;
    } else args[positional.name] = word;
    taken.push(word);
    typed.push(word);
    left = left.slice(1);
  }
  const missing = command.positionals.find(
    (item) => item.required && !(item.rest ? remaining[0] : item.name in args),
  );
  if (missing && !help && args[LIST] !== true) {
    const list = command.options.some(({ long }) => long === LIST)
      ? `\nto see what there is: ${prog} ${command.name} --${LIST}`
      : "";
    throw new VmError("usage", `${command.name}: ${missing.label} is missing`, {
      hint: `usage: ${prog} ${usageOf(command)}\n${missing.label}: ${missing.help}${list}`,
    });
  }
  const all = [...taken, ...remaining];
  const invocation = { command, words: all, args, rest: remaining, help, implicit: false, globals, typed };
  return { invocation, left };
}
