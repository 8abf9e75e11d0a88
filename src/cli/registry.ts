import type { Command } from "./command.ts";
// A macro: the build reads the definitions, so that a start loads only the command that is called.
import { commandTable } from "./command-table.ts" with { type: "macro" };

/** [compat] The six names that end a list of arguments even without `@`. */
export const OLD_NAMES = ["create", "run", "backup", "restore", "destroy", "job"] as const;

/** A macro's promise is awaited by the build. */
const TABLE = commandTable() as unknown as string;

/** All commands, in the order of the help. A Map, as `constructor` is not a command. */
export const COMMANDS: ReadonlyMap<string, Command> = new Map(
  (JSON.parse(TABLE) as Command[]).map((command) => [command.name, command]),
);
