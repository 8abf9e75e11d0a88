/** Command lines and their meanings as single lines, for tables. */
import { parseArgv, type Intent } from "../../src/cli/argv.ts";
import type { Invocation } from "../../src/cli/invocation.ts";
import { VmError } from "../../src/lib/errors.ts";

/** Splits a table's line: `''` is an empty word, `·` a blank in a word. */
export const wordsOf = (line: string): string[] =>
  line
    .split(" ")
    .filter((word) => word !== "")
    .map((word) => (word === "''" ? "" : word.replaceAll("·", " ")));

const show = (word: string): string => (/^[^\s']+$/.test(word) ? word : `'${word}'`);

/** `run(isoimage=x.iso)`; an implicit command is in brackets. */
export function showInvocation({ command, args, rest, help, implicit }: Invocation): string {
  const given = Object.entries(args).map(([name, value]) =>
    value === true ? `--${name}` : `${name}=${show(String(value))}`,
  );
  if (rest.length > 0) given.push(`[${rest.map(show).join(" ")}]`);
  const text = `${command.name}(${given.join(", ")})${help ? " help" : ""}`;
  return implicit ? `[${text}]` : text;
}

const list = (value: string | string[]): string => (Array.isArray(value) ? `(${value.join(" ")})` : value);

/** `CORES=8 IMAGES+=a hostdir=d help | run()` */
export function showIntent(intent: Intent): string {
  const { options, batch } = intent;
  const parts = [
    ...Object.entries(options.settings).map(([name, value]) => `${name}=${list(value)}`),
    ...Object.entries(options.additions).flatMap(([name, items]) =>
      items.map((item) => `${name}+=${show(item)}`),
    ),
    ...(options.hostdir === undefined ? [] : [`hostdir=${show(options.hostdir)}`]),
    ...(options.labels ? [`labels=${options.labels.join(",")}`] : []),
    ...(["help", "version", "licenses", "noColors", "debug"] as const).filter((flag) => intent[flag]),
  ];
  return [parts.join(" "), batch.map(showInvocation).join(" ")].filter((part) => part !== "").join(" | ");
}

/** Result of a function for a line, or `STATUS: message`. Unexpected errors are rethrown. */
export function meaningOf(meaning: () => string): string {
  try {
    return meaning();
  } catch (error) {
    if (error instanceof VmError) return `${error.exitCode}: ${error.message}`;
    throw error;
  }
}

/** Parses a whole command line to its meaning. */
export const intentOf = (line: string): string => meaningOf(() => showIntent(parseArgv(wordsOf(line), "vm")));
