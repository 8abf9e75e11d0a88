import type { ValueKind } from "../commands/define.ts";

/** A command as usage, completion and the parser see it: citty's definition, flattened. */
export interface Command {
  name: string;
  summary: string;
  positionals: Positional[];
  options: CommandOption[];
}

export interface Positional {
  name: string;
  /** As usage shows it: `SNAPSHOT`, `CMD [ARG…]`. */
  label: string;
  /** Takes all words up to the end of the line, whatever they look like. */
  rest: boolean;
  required: boolean;
  /** The last one may be given any number of times. */
  many: boolean;
  help: string;
  choices?: readonly string[] | undefined;
  kind?: ValueKind | undefined;
}

export interface CommandOption {
  long: string;
  short?: string | undefined;
  value?: string | undefined;
  /** May be given any number of times: its value is an array. */
  many?: true | undefined;
  help: string;
  choices?: readonly string[] | undefined;
  kind?: ValueKind | undefined;
}
