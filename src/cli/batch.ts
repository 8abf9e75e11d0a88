import { VmError } from "../lib/errors.ts";
import { parseOptions } from "./getopt.ts";
import { nearest } from "../lib/nearest.ts";
import { COMMANDS, OLD_NAMES, type Command, type CommandOption } from "./registry.ts";

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
}

/** Every command has it. */
export const HELP = { long: "help", short: "h", help: "show this help" };

/** `@name`, as opposed to a word that merely begins with `@` (`@MEDIA@/x.iso`). */
const REFERENCE = /^@([a-z][a-z-]*)$/;

/** The name behind the `@` of a command. */
export const referenceOf = (word: string): string | undefined => REFERENCE.exec(word)?.[1];

export const isOldName = (word: string): boolean => (OLD_NAMES as readonly string[]).includes(word);

/** Free text may begin with a dash. */
export const FREE_TEXT = "description";

function unknownCommand(word: string): VmError {
  const suggestion = nearest(word, [...COMMANDS.keys()]);
  return new VmError("usage", `unknown command '${word}'`, {
    hint: `${suggestion ? `did you mean '${suggestion}'? ` : ""}commands: ${[...COMMANDS.keys()].join(" ")}`,
  });
}

/**
 * Splits the words behind the options into commands. Nothing has run when it throws.
 * @throws 64 for an unknown command or option, a missing or a surplus argument
 */
export function parseBatch(words: readonly string[], prog: string): Invocation[] {
  const run = COMMANDS.get("run")!;
  if (words.length === 0)
    return [{ command: run, words: [], args: {}, rest: [], help: false, implicit: true }];
  const [first = ""] = words;
  if (first === "") throw unknownCommand(first);
  if (words.length === 1 && !REFERENCE.test(first) && !COMMANDS.has(first))
    return [
      { command: run, words: [first], args: { isoimage: first }, rest: [], help: false, implicit: true },
    ];
  const batch: Invocation[] = [];
  let rest = [...words];
  while (rest.length > 0) {
    const word = rest.shift()!;
    const name = referenceOf(word) ?? word;
    const command = COMMANDS.get(name);
    // Behind the first command only @name and the six old names get here, or a word too many.
    if (!command)
      throw batch.length > 0 && !REFERENCE.test(word) ? surplus(word, batch.at(-1)!) : unknownCommand(name);
    if (batch.length > 0 && !REFERENCE.test(word) && !isOldName(word)) throw surplus(word, batch.at(-1)!);
    const { invocation, left } = parseInvocation(command, rest, prog);
    batch.push(invocation);
    rest = left;
  }
  return batch;
}

function surplus(word: string, { command }: Invocation): VmError {
  const later = COMMANDS.has(word) ? `; to run the command ${word} next, write @${word}` : "";
  return new VmError("usage", `${command.name}: '${word}' is one argument too many`, {
    hint: `usage: ${usageOf(command)}${later}`,
  });
}

/** How many words an option takes that stands first, with its full name; 0 where none does. */
function spelledOut([word = "", next]: readonly string[], { options }: Command): number {
  const [, name, given] = /^--([a-z-]+)(=.*)?$/s.exec(word) ?? [];
  const option = options.find(({ long }) => long === name);
  if (!option) return 0;
  return option.value !== undefined && given === undefined && next !== undefined ? 2 : 1;
}

/** An option's value; those of an option that may be repeated come together. */
function take(args: Invocation["args"], { long, many }: CommandOption, value: string | undefined): void {
  args[long] = many ? ([args[long] ?? [], value ?? []].flat() as string[]) : (value ?? true);
}

function parseInvocation(
  command: Command,
  words: string[],
  prog: string,
): { invocation: Invocation; left: string[] } {
  const further = command.positionals.some((item) => item.rest)
    ? `for what ${command.name} starts: ${prog} ${command.name} -- …; all others`
    : "all others";
  const hint = `options of ${command.name} itself: ${prog} ${command.name} -h; ${further} stand before the first command`;
  const shapes = [...command.options, HELP];
  const args: Invocation["args"] = {};
  const taken: string[] = [];
  let left = words;
  let remaining: string[] = [];
  let optionsOver = false;
  let help = false;
  for (let index = 0; index <= command.positionals.length; index++) {
    const positional = command.positionals[index];
    if (!optionsOver && positional?.name !== FREE_TEXT) {
      const before = left;
      const { found, rest } = parseOptions(left, shapes, hint);
      left = rest;
      for (const { option, value } of found) {
        if (option === HELP) help = true;
        else take(args, option, value);
      }
      optionsOver = before[before.length - rest.length - 1] === "--";
    }
    // Free text may begin with a dash; but the full name of an option here is hardly meant as a description.
    if (!optionsOver && positional?.name === FREE_TEXT)
      for (let count = spelledOut(left, command); count > 0; count = spelledOut(left, command)) {
        const { found } = parseOptions(left.slice(0, count), shapes, hint);
        for (const { option, value } of found) take(args, option, value);
        left = left.slice(count);
      }
    if (positional?.rest) {
      [remaining, left] = [left, []];
      break;
    }
    if (positional?.name === FREE_TEXT && left[0] === "--") left = left.slice(1);
    const word = left[0];
    if (!positional || word === undefined) break;
    const reference = referenceOf(word);
    if (reference !== undefined && (COMMANDS.has(reference) || !positional.required)) {
      if (!COMMANDS.has(reference)) throw unknownCommand(reference);
      break;
    }
    if (!positional.required && !optionsOver && isOldName(word)) break;
    if (word === "" && positional.required) break;
    if (word === "" && positional.name !== FREE_TEXT)
      throw new VmError("usage", `${command.name}: ${positional.label} is empty`, {
        hint: `usage: ${usageOf(command)}`,
      });
    if (positional.many) {
      args[positional.name] = [args[positional.name] ?? []].flat().concat(word) as string[];
      index--;
    } else args[positional.name] = word;
    taken.push(word);
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
  return { invocation: { command, words: all, args, rest: remaining, help, implicit: false }, left };
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
