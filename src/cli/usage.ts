import { SCHEMA, type SettingName } from "../config/schema.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { isOn } from "../config/values.ts";
import { MACROS } from "../machine/macros.ts";
import { exitStatusesOf } from "./exit-statuses.ts";
import { labelArgument } from "./selecting.ts";
import { signatureOf, usageOf } from "./signature.ts";
import { GLOBAL_OPTIONS, type OptionSpec } from "./options.ts";
import type { Command } from "./command.ts";
import { COMMANDS } from "./registry.ts";

/** Settings as in force, for the help; raw, as the user would write them. */
export type UsageValues = Partial<Record<SettingName, SettingValue>> & { hostdir: string };

/** Two columns: names, and what they mean. */
function formatRows(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.min(Math.max(...rows.map(([name]) => name.length)), 32) + 2;
  return rows.map(([name, text]) =>
    name.length + 2 > width ? `  ${name}\n  ${" ".repeat(width)}${text}` : `  ${name.padEnd(width)}${text}`,
  );
}

const listSpellings = ({ short, long, value }: OptionSpec): string =>
  `${short ? `-${short}, ` : "    "}--${long}${value ? `=${value}` : ""}`;

/** The value in force that an option would change, in brackets. */
function inForceOf({ effect, value }: OptionSpec, values: UsageValues): string {
  if (effect.kind === "hostdir") return ` [${values.hostdir}]`;
  if (effect.kind === "flag" || effect.kind === "label") return "";
  const raw = values[effect.setting];
  if (effect.kind === "set" && value === undefined) return "";
  const text = [raw ?? ""].flat().join(" ");
  return ` [${text === "" ? "none" : text}]`;
}

/** `vm -h` */
export function buildUsage(prog: string, version: string, values: UsageValues): string {
  const options = GLOBAL_OPTIONS.filter((option) => !option.hidden).map(
    (option) => [listSpellings(option), option.help + inForceOf(option, values)] as const,
  );
  const commands = [...COMMANDS.values()].map((command) => [signatureOf(command), command.summary] as const);
  const modes = (["UEFI", "KEEPCD", "USENETDEV", "INPLACE"] as const).map(
    (name) => [name, `${SCHEMA[name].help} [${isOn(values[name] ?? "") ? "on" : "off"}]`] as const,
  );
  return [
    `${prog} ${version}: creates, runs, snapshots, restores and destroys qemu virtual machines`,
    "",
    `usage: ${prog} [options] [--] [ISOIMAGE]`,
    `       ${prog} [options] [--] [@]command [args] [[@]command [args] …]`,
    "",
    "commands (several make a batch, which stops at the first failure):",
    ...formatRows(commands),
    `  ${prog} COMMAND -h, or ${prog} help COMMAND, shows a command's arguments and options.`,
    "",
    "options, before the first command or after a single one [values in force]:",
    ...formatRows(options),
    "",
    "modes in force:",
    ...formatRows(modes),
    "",
    "macros at the start of a path in --image and --share:",
    ...formatRows(MACROS),
    "",
    "files: /etc/PROG.conf, ~/.config/PROG.conf, guest.env (settings); PROG.defaults (arguments for qemu)".replaceAll(
      "PROG",
      prog,
    ),
    "",
    "example: make a VM, install it from a CD, and keep the result as the snapshot S0:",
    `  ${prog} -c 8 -m 4G @create WS10 /iso/image.iso @run @backup`,
    "",
  ].join("\n");
}

/** `vm COMMAND -h` */
export function buildCommandUsage(prog: string, command: Command): string {
  const args = [
    ...command.positionals.map((item) => [item.label, item.help] as const),
    ...labelArgument(command.name),
  ];
  const options = [...command.options, { long: "help", short: "h", help: "show this help" }].map(
    (option) =>
      [
        listSpellings({ ...option, effect: { kind: "flag", flag: "help" } } as OptionSpec),
        option.help,
      ] as const,
  );
  return [
    `usage: ${prog} [options] [@]${usageOf(command)}`,
    "",
    command.summary,
    "",
    ...(args.length > 0 ? ["arguments:", ...formatRows(args), ""] : []),
    "options of this command:",
    ...formatRows(options),
    "",
    `options of all commands, also accepted here: ${prog} -h`,
    "",
    "exit status:",
    ...formatRows(exitStatusesOf(command.name)),
    "",
  ].join("\n");
}
