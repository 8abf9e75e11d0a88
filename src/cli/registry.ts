import type { CommandDef } from "citty";
import type { CommandArg, ValueKind } from "../commands/define.ts";
import adopt from "../commands/adopt.ts";
import backup from "../commands/backup.ts";
import completion from "../commands/completion.ts";
import config from "../commands/config.ts";
import console from "../commands/console.ts";
import cp from "../commands/cp.ts";
import create from "../commands/create.ts";
import destroy from "../commands/destroy.ts";
import doctor from "../commands/doctor.ts";
import exec from "../commands/exec.ts";
import identity from "../commands/identity.ts";
import job from "../commands/job.ts";
import list from "../commands/list.ts";
import man from "../commands/man.ts";
import pause from "../commands/pause.ts";
import prune from "../commands/prune.ts";
import rescue from "../commands/rescue.ts";
import restart from "../commands/restart.ts";
import restore from "../commands/restore.ts";
import resume from "../commands/resume.ts";
import run from "../commands/run.ts";
import screenshot from "../commands/screenshot.ts";
import selfCheck from "../commands/self-check.ts";
import snapshots from "../commands/snapshots.ts";
import ssh from "../commands/ssh.ts";
import status from "../commands/status.ts";
import stop from "../commands/stop.ts";
import timer from "../commands/timer.ts";
import verify from "../commands/verify.ts";
import view from "../commands/view.ts";

/** One command: citty's definition, resolved and flattened. */
export interface Command {
  name: string;
  summary: string;
  positionals: Positional[];
  options: CommandOption[];
  definition: CommandDef<any>;
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

/** [compat] The six names that end a list of arguments even without `@`. */
export const OLD_NAMES = ["create", "run", "backup", "restore", "destroy", "job"] as const;

const DEFINITIONS = {
  create,
  run,
  stop,
  restart,
  pause,
  resume,
  status,
  list,
  backup,
  restore,
  snapshots,
  prune,
  verify,
  timer,
  identity,
  adopt,
  destroy,
  job,
  rescue,
  console,
  exec,
  ssh,
  cp,
  screenshot,
  view,
  config,
  doctor,
  "self-check": selfCheck,
  completion,
  man,
} satisfies Record<string, CommandDef<any>>;

function flattenCommand(name: string, definition: CommandDef<any>): Command {
  const meta = definition.meta as { description: string };
  const args = Object.entries((definition.args ?? {}) as Record<string, CommandArg>);
  return {
    name,
    summary: meta.description,
    definition,
    positionals: args.flatMap(([key, arg]) => (arg.type === "positional" ? [positionalOf(key, arg)] : [])),
    options: args.flatMap(([key, arg]) => (arg.type === "positional" ? [] : [optionOf(key, arg)])),
  };
}

const positionalOf = (name: string, arg: CommandArg): Positional => ({
  name,
  label: arg.valueHint ?? name.toUpperCase(),
  required: arg.required !== false,
  many: arg.many === true,
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

/** All commands, in the order of the help. A Map, as `constructor` is not a command. */
export const COMMANDS: ReadonlyMap<string, Command> = new Map(
  Object.entries(DEFINITIONS).map(([name, definition]) => [name, flattenCommand(name, definition)]),
);
