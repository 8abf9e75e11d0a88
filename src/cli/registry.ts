import type { Command } from "./command.ts";
// A macro: the build reads the definitions, so that a start loads only the command that is called.
import { commandTable } from "./command-table.ts" with { type: "macro" };

/** [compat] The six names that end a list of arguments even without `@`. */
export const OLD_NAMES = ["create", "run", "backup", "restore", "destroy", "job"] as const;

/** A macro's promise is awaited by the build. */
const TABLE = new Map(Object.entries(commandTable() as unknown as Record<string, string>));

const known = new Map<string, Command>();

/** Parsed when it is asked for: most command lines have one or two. */
function findCommand(name: string): Command | undefined {
  const json = TABLE.get(name);
  if (json === undefined) return undefined;
  const command = known.get(name) ?? (JSON.parse(json) as Command);
  known.set(name, command);
  return command;
}

/** All commands, in the order of the help. */
export const COMMANDS = {
  has: (name: string): boolean => TABLE.has(name),
  get: findCommand,
  keys: (): string[] => [...TABLE.keys()],
  values: (): Command[] => [...TABLE.keys()].map((name) => findCommand(name)!),
};
