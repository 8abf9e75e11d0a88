import { VmError } from "../lib/errors.ts";
import { nearest } from "../lib/nearest.ts";
import { parseOptions, UnknownOption, wordsOfOption, type Occurrence } from "./getopt.ts";
import { GLOBAL_OPTIONS, type OptionSpec } from "./options.ts";
import { COMMANDS, OLD_NAMES, type Command, type CommandOption } from "./registry.ts";
import { lineOf, unknownCommand } from "./suggest.ts";

/** One command of a batch, checked. */
export interface Invocation {
  command: Command;
  /** In the order typed, for the announcement. */
  words: string[];
  /** Positional arguments and options by name, as citty's `run` takes them. */
  args: Record<string, string | boolean | string[]>;
  /** The words of a positional that takes the rest of the line: citty's `args._`. */
  rest: string[];
  /** `-h` behind the command. */
  help: boolean;
  /** Nobody named the command: a lone word, taken as a CD image. */
  implicit: boolean;
  /** Options of all commands that stood behind this one. */
  globals: Occurrence<OptionSpec>[];
  /** The words of the command without these, as they can be typed. */
  typed: string[];
}

/** Every command has it. */
export const HELP: CommandOption = { long: "help", short: "h", help: "show this help" };

/** `@name`, as opposed to a word that merely begins with `@` (`@MEDIA@/x.iso`). */
const REFERENCE = /^@([a-z][a-z-]*)$/;

/** The name behind the `@` of a command. */
export const referenceOf = (word: string): string | undefined => REFERENCE.exec(word)?.[1];

export const isOldName = (word: string): boolean => (OLD_NAMES as readonly string[]).includes(word);

/** Free text may begin with a dash. */
export const FREE_TEXT = "description";

/** What the words of a batch stand in. */
interface Line {
  prog: string;
  /** The options before the first command, as typed. */
  before: readonly string[];
  words: readonly string[];
}

/**
 * Splits the words behind the options into commands. Nothing has run when it throws.
 * @param before the options before them, for lines in hints
 * @throws 64 for an unknown command or option, a missing or a surplus argument
 */
export function parseBatch(
  words: readonly string[],
  prog: string,
  before: readonly string[] = [],
): Invocation[] {
  const line: Line = { prog, before, words };
  const alone = parseAlone(line);
  if (alone) return [alone];
  const batch: Invocation[] = [];
  let rest = [...words];
  while (rest.length > 0) {
    const at = words.length - rest.length;
    const word = rest.shift()!;
    const name = referenceOf(word) ?? word;
    const command = COMMANDS.get(name);
    const retype = (replacement: string): string[] => [...before, ...words.with(at, replacement)];
    // Behind the first command only @name and the six old names get here, or a word too many.
    if (batch.length > 0 && !REFERENCE.test(word) && !isOldName(word))
      throw surplus(word, at, batch.at(-1)!, line);
    if (!command)
      throw unknownCommand(name, prog, (found) => retype(word.startsWith("@") ? `@${found}` : found));
    const { invocation, left } = parseInvocation(command, rest, line);
    batch.push(invocation);
    rest = left;
  }
  refuseScattered(batch, line);
  return batch;
}

/** No command: `run`. One word that is none, with options behind it or without: a CD image for it. */
function parseAlone(line: Line): Invocation | undefined {
  const run = COMMANDS.get("run")!;
  const [first, ...others] = line.words;
  if (first === undefined) return { ...parseInvocation(run, [], line).invocation, implicit: true };
  if (REFERENCE.test(first) || COMMANDS.has(first) || (others.length > 0 && !others[0]!.startsWith("-")))
    return undefined;
  try {
    const { invocation, left } = parseInvocation(run, others, line);
    if (left.length > 0 || invocation.help || invocation.words.length > 0) return undefined;
    const args = { ...invocation.args, isoimage: first };
    return { ...invocation, args, words: [first], implicit: true };
  } catch (error) {
    // The word is what is wrong.
    if (error instanceof VmError) return undefined;
    throw error;
  }
}

/** In a batch an option behind a command could be meant for that one alone. */
function refuseScattered(batch: readonly Invocation[], { prog, before }: Line): void {
  const found = batch.flatMap(({ globals }) => globals);
  if (batch.length < 2 || found.length === 0) return;
  const { command } = batch.find(({ globals }) => globals.length > 0)!;
  const words = [
    ...before,
    ...found.flatMap(wordsOfOption),
    ...batch.flatMap(({ command: { name }, typed }) => [`@${name}`, ...typed]),
  ];
  throw new VmError("usage", `${command.name}: in a batch the option ${found[0]!.spelling} stands first`, {
    hint: `for all commands: ${lineOf(prog, words)}`,
  });
}

function surplus(word: string, at: number, { command, args }: Invocation, line: Line): VmError {
  const { prog, before, words } = line;
  const hints = [`usage: ${usageOf(command)}`];
  const text = args[FREE_TEXT];
  const option = GLOBAL_OPTIONS.find(({ short, value }) => value !== undefined && text === `-${short}`);
  // `backup S0 -d DIR`: free text may begin with a dash.
  if (option)
    hints.unshift(
      `did you mean: ${lineOf(prog, [...before, text as string, word, ...words.toSpliced(at - 1, 2)])}`,
    );
  else if (COMMANDS.has(word))
    hints.push(`to run ${word} next: ${lineOf(prog, [...before, ...words.with(at, `@${word}`)])}`);
  return new VmError("usage", `${command.name}: '${word}' is one argument too many`, {
    hint: hints.join("\n"),
  });
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

/** Options of all commands that may stand behind this one. */
function globalsBehind(command: Command): readonly OptionSpec[] {
  if (!command.positionals.some((item) => item.rest)) return GLOBAL_OPTIONS;
  // What it starts has short options of its own: `ssh -p 22`.
  return GLOBAL_OPTIONS.map(({ short, ...option }) =>
    option.effect.kind === "hostdir" && short !== undefined ? { ...option, short } : option,
  );
}

/** The hint for an option that a command does not know. */
function optionHint(command: Command, spelling: string, typed: readonly string[], line: Line): string {
  const { prog, before, words } = line;
  const at = words.length - typed.length;
  const help = `options of ${command.name}: ${prog} ${command.name} -h`;
  if (command.name === "ssh")
    return `options of ssh stand behind --: ${lineOf(prog, [...before, ...words.slice(0, at), "--", ...typed])}\n${help}`;
  const similar = nearest(
    spelling.slice(2),
    command.options.map(({ long }) => long),
  );
  const wrong = typed.findIndex((word) => word === spelling || word.startsWith(`${spelling}=`));
  if (!spelling.startsWith("--") || similar === undefined || wrong < 0) return help;
  const right = typed[wrong]!.replace(spelling, `--${similar}`);
  const retyped = words.with(at + wrong, right);
  return `did you mean: ${lineOf(prog, [...before, ...retyped])}\n${help}`;
}

function parseInvocation(
  command: Command,
  words: readonly string[],
  line: Line,
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
        args[option.long] = value ?? true;
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
    if (!positional.required && !optionsOver && isOldName(word)) break;
    if (word === "" && positional.required) break;
    // [compat] To the old commands an empty word is an argument: no name, no ISO.
    if (word === "" && !isOldName(command.name))
      throw new VmError("usage", `${command.name}: ${positional.label} is empty`, {
        hint: `usage: ${usageOf(command)}`,
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
  if (missing && !help)
    throw new VmError("usage", `${command.name}: ${missing.label} is missing`, {
      hint: `usage: ${usageOf(command)}`,
    });
  const all = [...taken, ...remaining];
  const invocation = { command, words: all, args, rest: remaining, help, implicit: false, globals, typed };
  return { invocation, left };
}

/** More than this many columns of options are left to the command's own help. */
const OPTIONS_WIDTH = 80;

/** `destroy [--force]`: with the command's own options. */
export function usageOf(command: Command): string {
  const options = command.options.map(({ long, value }) => `[--${long}${value ? `=${value}` : ""}]`);
  const all = options.join(" ");
  return signatureOf(command, all.length > OPTIONS_WIDTH ? "[OPTIONS]" : all);
}

/** `backup [SNAPSHOT [DESCRIPTION]]` */
export function signatureOf(command: Command, options = ""): string {
  const required = command.positionals.filter((item) => item.required).map((item) => item.label);
  const optional = command.positionals
    .filter((item) => !item.required)
    .reduceRight((inner, item) => `[${item.label}${item.many ? "…" : ""}${inner && ` ${inner}`}]`, "");
  return [command.name, options, ...required, optional].filter(Boolean).join(" ");
}
