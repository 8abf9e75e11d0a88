import type { CommandDef } from "citty";
import type { CommandArg } from "../commands/define.ts";
import type { Command, CommandOption, Positional } from "./command.ts";
import { LOADERS } from "./loaders.ts";

/** Describes all commands, each as JSON of a `Command`, by name: registry.ts calls it in the build. */
export async function commandTable(): Promise<Record<string, string>> {
  const commands = Object.entries(LOADERS).map(async ([name, load]) => [
    name,
    JSON.stringify(flattenCommand(name, (await load()).default)),
  ]);
  return Object.fromEntries(await Promise.all(commands));
}

function flattenCommand(name: string, definition: CommandDef<any>): Command {
  const meta = definition.meta as { description: string };
  const args = Object.entries((definition.args ?? {}) as Record<string, CommandArg>);
  return {
    name,
    summary: meta.description,
    positionals: args.flatMap(([key, arg]) => (arg.type === "positional" ? [positionalOf(key, arg)] : [])),
    options: args.flatMap(([key, arg]) => (arg.type === "positional" ? [] : [optionOf(key, arg)])),
  };
}

const positionalOf = (name: string, arg: CommandArg): Positional => ({
  name,
  label: arg.valueHint ?? name.toUpperCase(),
  required: arg.required !== false,
  many: arg.many === true,
  empty: arg.empty === true,
  rest: arg.rest === true,
  help: arg.description ?? "",
  choices: arg.choices,
  kind: arg.kind,
});

const optionOf = (long: string, arg: CommandArg): CommandOption => ({
  long,
  help: arg.description ?? "",
  value: arg.type === "string" ? (arg.valueHint ?? "VALUE") : undefined,
  many: arg.many,
  short: "alias" in arg && typeof arg.alias === "string" ? arg.alias : undefined,
  choices: arg.choices,
  kind: arg.kind,
});
