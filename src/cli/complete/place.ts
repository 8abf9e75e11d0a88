import type { OptShape } from "../getopt.ts";
import { matchLong } from "../getopt.ts";
import { endsArguments, FREE_TEXT, globalsBehind, HELP, isOldName, referenceOf } from "../invocation.ts";
import { GLOBAL_OPTIONS, type OptionSpec } from "../options.ts";
import type { Command, CommandOption } from "../command.ts";
import { COMMANDS, OLD_NAMES } from "../registry.ts";
import { takesLabels } from "../selecting.ts";
import { argumentValues, settingValues, type CandidateSource, type Values } from "./values.ts";

/** The candidates at the cursor. */
export interface CursorPlace {
  /** Length of the word's fixed prefix: `--iso=` of `--iso=x`. */
  skip: number;
  sources: CandidateSource[];
}

const NOTHING: CursorPlace = { skip: 0, sources: [] };

interface Walk<T> {
  found: { option: T; value: string | undefined }[];
  rest: string[];
  /** The last option, if its value is missing. */
  pending: T | undefined;
  /** After `--`. */
  over: boolean;
}

/** Parses options like getopt, without errors, as the line is incomplete. */
function walkOptions<T extends OptShape>(words: readonly string[], shapes: readonly T[]): Walk<T> {
  const rest = [...words];
  const found: Walk<T>["found"] = [];
  while (rest[0]?.startsWith("-") && rest[0] !== "-") {
    const word = rest.shift()!;
    if (word === "--") return { found, rest, pending: undefined, over: true };
    const { option, value } = lastOption(word, shapes);
    if (!option) continue;
    if (option.value !== undefined && value === undefined && rest.length === 0)
      return { found, rest, pending: option, over: false };
    found.push({ option, value: option.value === undefined ? undefined : (value ?? rest.shift()) });
  }
  return { found, rest, pending: undefined, over: false };
}

/** The option of `--name=value`, or the last one of a cluster `-nc8`, with the value in the word. */
function lastOption<T extends OptShape>(
  word: string,
  shapes: readonly T[],
): { option?: T | undefined; value?: string | undefined } {
  if (word.startsWith("--")) {
    const [name = "", ...parts] = word.slice(2).split("=");
    const near = matchLong(name, shapes);
    return {
      option: near.length === 1 ? near[0] : undefined,
      value: parts.length > 0 ? parts.join("=") : undefined,
    };
  }
  const letters = Array.from(word).slice(1);
  const at = letters.findIndex((letter) => shapes.find(({ short }) => short === letter)?.value !== undefined);
  const option = shapes.find(({ short }) => short === (letters[at] ?? letters.at(-1)));
  const value = at < 0 ? "" : letters.slice(at + 1).join("");
  return { option, value: value === "" ? undefined : value };
}

/** For a value at the end of `word`. */
function valuePlace(word: string, value: string, values: Values): CursorPlace {
  return { skip: word.length - value.length + values.skip, sources: values.sources };
}

/** For a cursor at an option's name or value; undefined elsewhere. */
function optionPlace<T extends OptShape & { help: string }>(
  { rest, pending, over }: Walk<T>,
  current: string,
  shapes: readonly T[],
  valuesOf: (option: T, value: string) => Values,
  offered: readonly T[] = shapes,
): CursorPlace | undefined {
  if (rest.length > 0) return undefined;
  if (pending) return valuePlace(current, current, valuesOf(pending, current));
  if (over || !current.startsWith("-")) return undefined;
  const { option, value } = lastOption(current, shapes);
  if (option?.value !== undefined && value !== undefined)
    return valuePlace(current, value, valuesOf(option, value));
  if (/^-[^-]/.test(current) || current.includes("=")) return NOTHING;
  const fitting = offered.some(({ long }) => `--${long}`.startsWith(current)) ? offered : shapes;
  const words = fitting
    .filter(({ hidden }) => !hidden)
    .map(({ long, value: name, help }) => ({ text: `--${long}${name === undefined ? "" : "="}`, help }));
  return { skip: 0, sources: [{ kind: "words", words }] };
}

function globalValues({ effect }: OptionSpec, value: string): Values {
  if (effect.kind === "label") return { skip: 0, sources: [{ kind: "labels", at: "" }] };
  if (effect.kind === "hostdir") return { skip: 0, sources: [{ kind: "directories" }] };
  return effect.kind === "flag" ? NOTHING : settingValues(effect.setting, value);
}

/**
 * Determines the candidates at the cursor.
 * @param words after the program's name, without the one at the cursor
 * @param current the word at the cursor, up to the cursor
 */
export function findPlace(
  words: readonly string[],
  current: string,
): { place: CursorPlace; hostdir: string | undefined } {
  const walk = walkOptions(words, GLOBAL_OPTIONS);
  const hostdir = walk.found.findLast(({ option }) => option.effect.kind === "hostdir")?.value;
  const place = optionPlace(walk, current, GLOBAL_OPTIONS, globalValues) ?? batchPlace(walk.rest, current);
  return { place, hostdir };
}

const isReference = (word: string): boolean => referenceOf(word) !== undefined;

function commandNames(names: Iterable<string>, at: string): CandidateSource {
  const words = [...names].map((name) => ({ text: at + name, help: COMMANDS.get(name)?.summary }));
  return { kind: "words", words };
}

function batchPlace(words: readonly string[], current: string): CursorPlace {
  const [first, ...others] = words;
  if (first === undefined) {
    if (current.startsWith("@")) return { skip: 0, sources: [commandNames(COMMANDS.keys(), "@")] };
    const some = [...COMMANDS.keys()].some((name) => name.startsWith(current));
    const sources: CandidateSource[] = some
      ? [commandNames(COMMANDS.keys(), "")]
      : [{ kind: "files", suffix: ".iso" }];
    return { skip: 0, sources };
  }
  const command = COMMANDS.get(referenceOf(first) ?? first);
  return command ? commandPlace(command, others, current) : NOTHING;
}

const optionValues = (option: CommandOption | OptionSpec, value: string): Values =>
  "effect" in option ? globalValues(option, value) : argumentValues(option, value);

function commandPlace(command: Command, words: readonly string[], current: string): CursorPlace {
  const own: readonly CommandOption[] = [...command.options, HELP];
  // Global options are offered if none of its own matches.
  const shapes: readonly (CommandOption | OptionSpec)[] = [
    ...own,
    ...globalsBehind(command).filter(({ long }) => !own.some((option) => option.long === long)),
  ];
  let left = [...words];
  let over = false;
  for (let index = 0; index <= command.positionals.length; index++) {
    const positional = command.positionals[index];
    if (!over && positional?.name !== FREE_TEXT) {
      const walk = walkOptions(left, shapes);
      const place = optionPlace(walk, current, shapes, optionValues, own);
      if (place) return place;
      ({ rest: left, over } = walk);
    }
    const [word] = left;
    if (word === undefined) return argumentPlace(command, index, current);
    if (positional?.rest) return argumentPlace(command, index, current);
    if (!positional || isReference(word) || (!positional.required && !over && endsArguments(word, command)))
      break;
    left = left.slice(1);
    if (positional.many) index--;
  }
  return batchPlace(left, current);
}

/** An argument of the command; if all required ones are given, also the next command. */
function argumentPlace(command: Command, index: number, current: string): CursorPlace {
  const positional = command.positionals[index];
  const { skip, sources } = positional ? argumentValues(positional, current) : NOTHING;
  if (positional?.required || positional?.rest || skip > 0) return { skip, sources };
  const next = commandNames(COMMANDS.keys(), "@");
  const labels: CandidateSource[] = takesLabels(command.name) ? [{ kind: "labels", at: "@" }] : [];
  if (current.startsWith("@")) return { skip: 0, sources: [next, ...labels] };
  // Without an `@` every command would be listed twice.
  if (current === "") return { skip: 0, sources: [...sources, next] };
  return { skip: 0, sources: isOldName(command.name) ? [...sources, commandNames(OLD_NAMES, "")] : sources };
}
