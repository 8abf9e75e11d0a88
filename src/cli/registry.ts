import type { ArgsDef, CommandDef } from "citty";
import backup from "../commands/backup.ts";
import config from "../commands/config.ts";
import create from "../commands/create.ts";
import destroy from "../commands/destroy.ts";
import doctor from "../commands/doctor.ts";
import job from "../commands/job.ts";
import list from "../commands/list.ts";
import pause from "../commands/pause.ts";
import rescue from "../commands/rescue.ts";
import restart from "../commands/restart.ts";
import restore from "../commands/restore.ts";
import resume from "../commands/resume.ts";
import run from "../commands/run.ts";
import status from "../commands/status.ts";
import stop from "../commands/stop.ts";
import timer from "../commands/timer.ts";
import verify from "../commands/verify.ts";

/** One command as the rest of `cli` sees it: citty's definition, resolved and flattened. */
export interface Command {
  name: string;
  summary: string;
  positionals: Positional[];
  options: CommandOption[];
  definition: CommandDef<any>;
}

export interface Positional {
  name: string;
  required: boolean;
  /** The last one may be given any number of times. */
  many: boolean;
  help: string;
}

export interface CommandOption {
  long: string;
  short?: string | undefined;
  value?: string | undefined;
  help: string;
}

/** [compat] The six names that end an argument list as bare words. */
export const OLD_NAMES = ["create", "run", "backup", "restore", "destroy", "job"] as const;

/** The `valueHint` of a positional that may be repeated; its value is an array then. */
const MANY = "…";

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
  verify,
  timer,
  destroy,
  job,
  rescue,
  config,
  doctor,
} satisfies Record<string, CommandDef<any>>;
function describe(name: string, definition: CommandDef<any>): Command {
  const meta = definition.meta as { description: string };
  const args = Object.entries((definition.args ?? {}) as ArgsDef);
  return {
    name,
    summary: meta.description,
    definition,
    positionals: args.flatMap(([key, arg]) =>
      arg.type === "positional"
        ? [
            {
              name: key,
              required: arg.required !== false,
              // citty has no word for it.
              many: arg.valueHint === MANY,
              help: arg.description ?? "",
            },
          ]
        : [],
    ),
    options: args.flatMap(([key, arg]) =>
      arg.type === "positional"
        ? []
        : [
            {
              long: key,
              help: arg.description ?? "",
              value: arg.type === "string" ? (arg.valueHint ?? "VALUE") : undefined,
              short: "alias" in arg && typeof arg.alias === "string" ? arg.alias : undefined,
            },
          ],
    ),
  };
}

/** All commands, in the order of the help. A Map: `constructor` is no command. */
export const COMMANDS: ReadonlyMap<string, Command> = new Map(
  Object.entries(DEFINITIONS).map(([name, definition]) => [name, describe(name, definition)]),
);
