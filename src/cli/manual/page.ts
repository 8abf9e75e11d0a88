import { date, version } from "../../../package.json";
import { buildDefaults } from "../../config/defaults.ts";
import type { SettingValue } from "../../config/shell-expand.ts";
import { SCHEMA, SETTING_NAMES, type SettingName } from "../../config/schema.ts";
import { EXIT, type ExitName } from "../../lib/errors.ts";
import { MACROS } from "../../machine/macros.ts";
import { EXIT_STATUS, exitStatusesOf, OTHER_STATUSES } from "../exit-statuses.ts";
import { labelArgument } from "../selecting.ts";
import { usageOf } from "../signature.ts";
import { GLOBAL_OPTIONS, type OptionSpec } from "../options.ts";
import type { Command } from "../command.ts";
import { COMMANDS } from "../registry.ts";
import * as words from "./prose.ts";
import { TOPICS, type Block } from "./topics.ts";
import {
  bold,
  example,
  fill,
  italic,
  item,
  literal,
  finish,
  paragraph,
  prose,
  section,
  subsection,
  title,
} from "./roff.ts";

interface Spelling {
  long: string;
  short?: string | undefined;
  value?: string | undefined;
}

/** The manual page in the language of man(7), made from the tables that the program works by. */
export function buildManual(prog: string): string {
  const named = (text: string): string => prose(text.replaceAll("PROG", prog));
  const paragraphs = (texts: readonly string[]): string[] => texts.flatMap((text) => paragraph(named(text)));
  const items = (rows: readonly (readonly [string, string])[]): string[] =>
    rows.flatMap(([name, text]) => item(bold(name.replaceAll("PROG", prog)), named(text)));
  const typed = (shown: readonly string[]): string[] =>
    example(shown.map((line) => line.replaceAll("PROG", prog)));
  const block = (content: Block): string[] => {
    if (typeof content === "string") return paragraphs([content]);
    return "typed" in content ? typed(content.typed) : items([content]);
  };
  const defaults = buildDefaults({ prog, home: "~", hostArch: "HOSTARCH", libexec: "~/.cache/vm/data-…" });
  const lines = [
    ...title(prog, date, `${prog} ${version}`),
    ...section("NAME"),
    `${literal(prog)} \\- create, run, snapshot, restore and destroy qemu virtual machines`,
    ...section("SYNOPSIS"),
    ...synopsis(prog),
    ...section("DESCRIPTION"),
    ...paragraphs(words.DESCRIPTION),
    ...section("COMMANDS"),
    ...[...COMMANDS.values()].flatMap((command) => commandPart(command, paragraphs)),
    ...section("OPTIONS"),
    ...GLOBAL_OPTIONS.filter(({ hidden }) => !hidden).flatMap((option) =>
      item(formatSpellings(option), prose(option.help + effectOf(option))),
    ),
    ...paragraph(prose("A path in `--image` and `--share` may begin with one of these:")),
    ...items(MACROS),
    ...section("SETTINGS"),
    ...paragraphs(words.SETTINGS),
    ...SETTING_NAMES.flatMap((name) => settingPart(name, defaults[name])),
    ...TOPICS.flatMap(({ title: name, blocks }) => [...section(name), ...blocks.flatMap(block)]),
    ...section("FILES"),
    ...items(words.FILES),
    ...section("EXIT STATUS"),
    ...exitStatus(),
    ...section("ENVIRONMENT"),
    ...items(words.ENVIRONMENT),
    ...section("EXAMPLES"),
    ...words.EXAMPLES.flatMap(([text, shown]) => [...paragraph(named(text)), ...typed(shown)]),
    ...section("SEE ALSO"),
    ...fill(
      words.SEE_ALSO.map((page) =>
        page.replace(/^(.+)(\(.\))$/, (_, word, number) => bold(word) + number),
      ).join(", "),
    ),
  ];
  return finish(lines);
}

const synopsis = (prog: string): string[] => {
  const start = `${bold(prog)} [${italic("options")}] [${bold("--")}]`;
  return [
    ...fill(`${start} [${italic("ISOIMAGE")}]`),
    ".br",
    ...fill(
      `${start} [${bold("@")}]${italic("command")} [${italic("args")}] [[${bold("@")}]${italic("command")} [${italic("args")}] ...]`,
    ),
  ];
};

/** `-c, --cores=N` */
const formatSpellings = ({ short, long, value }: Spelling): string =>
  [...(short ? [bold(`-${short}`)] : []), bold(`--${long}`) + (value ? `=${italic(value)}` : "")].join(", ");

/** The setting that an option stands for. */
function effectOf({ effect, value }: OptionSpec): string {
  if (effect.kind === "add") return `; the setting ${effect.setting}`;
  return effect.kind === "set" && value !== undefined ? `; the setting ${effect.setting}` : "";
}

/** Helps are no sentences; here they stand among some. */
const sentence = (text: string): string =>
  (/[.:]$/.test(text) ? text : `${text}.`).replace(/^[a-z]/, (letter) => letter.toUpperCase());

function commandPart(command: Command, paragraphs: (texts: readonly string[]) => string[]): string[] {
  const { name, summary, positionals, options } = command;
  const statuses = exitStatusesOf(name).map(([status, meaning]) => `${bold(status)} ${prose(meaning)}`);
  const more = Object.hasOwn(words.COMMANDS_PROSE, name) ? words.COMMANDS_PROSE[name]! : [];
  return [
    ...subsection(literal(usageOf(command))),
    ...fill(prose(sentence(summary))),
    ...paragraphs(more),
    ...positionals.flatMap((positional) => item(italic(positional.label), prose(positional.help))),
    ...labelArgument(name).flatMap(([label, help]) => item(italic(label), prose(help))),
    ...options.flatMap((option) => item(formatSpellings(option), prose(option.help))),
    ...paragraph(`Exit status: ${statuses.join("; ")}.`),
  ];
}

function settingPart(name: SettingName, fallback: SettingValue): string[] {
  const options = GLOBAL_OPTIONS.filter(
    ({ effect, hidden }) => !hidden && "setting" in effect && effect.setting === name,
  ).map(({ long }) => `\`--${long}\``);
  const { allowed } = SCHEMA[name].parse;
  const facts = [
    sentence(SCHEMA[name].help),
    ...(allowed === undefined ? [] : [`Allowed: ${allowed}.`]),
    ...defaultOf(name, fallback),
    ...(options.length > 0 ? [`Also ${options.join(", ")}.`] : []),
  ];
  return item(bold(name), prose(facts.join(" ")));
}

function defaultOf(name: SettingName, value: SettingValue): string[] {
  if (SCHEMA[name].parse.kind === "flag") return [`Default: ${value === "" ? "off" : "on"}.`];
  const text = [value].flat().join(" ");
  return text === "" ? [] : [`Default: \`${text}\`.`];
}

function exitStatus(): string[] {
  const named = (Object.entries(EXIT) as [ExitName, number][])
    .toSorted(([, a], [, b]) => a - b)
    .map(([name, status]) => [String(status), EXIT_STATUS[name]] as const);
  return [...named, ...OTHER_STATUSES].flatMap(([status, meaning]) => item(bold(status), prose(meaning)));
}
