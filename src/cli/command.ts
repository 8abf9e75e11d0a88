import type { ValueKind } from "../commands/define.ts";

/** A command for usage, completion and the parser: citty's definition, flattened. */
export interface Command {
  name: string;
  summary: string;
  positionals: Positional[];
  options: CommandOption[];
}

export interface Positional {
  name: string;
  /** In usage: `SNAPSHOT`, `CMD [ARG…]`. */
  label: string;
  /** Takes all words up to the end of the line, options included. */
  rest: boolean;
  required: boolean;
  /** The last one is repeatable. */
  many: boolean;
  /** Its words may be empty. */
  empty: boolean;
  help: string;
  choices?: readonly string[] | undefined;
  kind?: ValueKind | undefined;
}

export interface CommandOption {
  long: string;
  short?: string | undefined;
  value?: string | undefined;
  /** Repeatable: its value is an array. */
  many?: true | undefined;
  help: string;
  choices?: readonly string[] | undefined;
  kind?: ValueKind | undefined;
}
