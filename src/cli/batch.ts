import { VmError } from "../lib/errors.ts";
import { wordsOfOption } from "./getopt.ts";
import {
  FREE_TEXT,
  endsArguments,
  parseInvocation,
  REFERENCE,
  referenceOf,
  type Invocation,
  type TypedLine,
} from "./invocation.ts";
import { GLOBAL_OPTIONS } from "./options.ts";
import { COMMANDS } from "./registry.ts";
import { explainLabel, takesLabels } from "./selecting.ts";
import { usageOf } from "./signature.ts";
import { formatLine, unknownCommand } from "./suggest.ts";

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
  const line: TypedLine = { prog, before, words };
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
    const previous = batch.at(-1);
    if (previous && !REFERENCE.test(word) && !endsArguments(word, previous.command))
      throw surplus(word, at, previous, line);
    if (!command) {
      const unknown = unknownCommand(name, prog, (found) =>
        retype(word.startsWith("@") ? `@${found}` : found),
      );
      throw batch.length === 1
        ? explainLabel(unknown, word, batch[0]!.command.name, formatLine(prog, ["list", word]))
        : unknown;
    }
    // `stop @web`; in a batch, whose commands have an @, labels are options.
    const mayHaveLabels = batch.length === 0 && word === name && takesLabels(name);
    const { invocation, left } = parseInvocation(command, rest, line, mayHaveLabels);
    batch.push(invocation);
    rest = left;
  }
  refuseScattered(batch, line);
  return batch;
}

/** No command: `run`. A single word that is not a command, with or without options after it: its CD image. */
function parseAlone(line: TypedLine): Invocation | undefined {
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
function refuseScattered(batch: readonly Invocation[], { prog, before }: TypedLine): void {
  const found = batch.flatMap(({ globals }) => globals);
  if (batch.length < 2 || found.length === 0) return;
  const { command } = batch.find(({ globals }) => globals.length > 0)!;
  const words = [
    ...before,
    ...found.flatMap(wordsOfOption),
    ...batch.flatMap(({ command: { name }, typed }) => [`@${name}`, ...typed]),
  ];
  throw new VmError("usage", `${command.name}: in a batch the option ${found[0]!.spelling} stands first`, {
    hint: `for all commands: ${formatLine(prog, words)}`,
  });
}

/** A word too many. */
export class Surplus extends VmError {
  constructor(
    message: string,
    hint: string,
    readonly word: string,
    /** The line without it. */
    readonly others: readonly string[],
  ) {
    super("usage", message, { hint });
  }
}

function surplus(word: string, at: number, { command, args }: Invocation, line: TypedLine): Surplus {
  const { prog, before, words } = line;
  const hints = [`usage: ${prog} ${usageOf(command)}`];
  const text = args[FREE_TEXT];
  const option = GLOBAL_OPTIONS.find(({ short, value }) => value !== undefined && text === `-${short}`);
  // `backup S0 -d DIR`: free text may begin with a dash.
  if (option)
    hints.unshift(
      `did you mean: ${formatLine(prog, [...before, text as string, word, ...words.toSpliced(at - 1, 2)])}`,
    );
  else if (COMMANDS.has(word))
    hints.push(`to run ${word} next: ${formatLine(prog, [...before, ...words.with(at, `@${word}`)])}`);
  return new Surplus(`${command.name}: '${word}' is one argument too many`, hints.join("\n"), word, [
    ...before,
    ...words.toSpliced(at, 1),
  ]);
}
