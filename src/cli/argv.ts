import { badOption } from "../config/complaint.ts";
import { LABEL_SYNTAX } from "../config/machine-values.ts";
import { parseSetting, type RawSettings } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { isLabel } from "../lib/text.ts";
import type { Options } from "../vm/context.ts";
import { parseBatch } from "./batch.ts";
import { referenceOf, type Invocation } from "./invocation.ts";
import { parseOptions, UnknownOption } from "./getopt.ts";
import { GLOBAL_OPTIONS, type OptionSpec } from "./options.ts";
import { COMMANDS } from "./registry.ts";
import { refuseCommandLabels, requireSelecting } from "./selecting.ts";
import { formatLine, unknownCommand } from "./suggest.ts";

/** The whole command line, understood and checked; nothing has happened yet. */
export interface Intent {
  options: Options;
  help: boolean;
  version: boolean;
  licenses: boolean;
  noColors: boolean;
  debug: boolean;
  batch: Invocation[];
}

/** @throws 64 when anything in it is wrong */
export function parseArgv(words: readonly string[], prog: string): Intent {
  const { found, rest } = readLeading(words, prog);
  const help = askedFor(rest, prog);
  const flagged = help !== undefined || found.some(({ option }) => isAnswer(option));
  const batch = flagged ? (help ?? []) : parseBatch(rest, prog, words.slice(0, words.length - rest.length));
  const settings: RawSettings = {};
  const additions: Required<Options["additions"]> = {
    FORWARDS: [],
    IMAGES: [],
    NETWORKS: [],
    SHARES: [],
    SMBIOS: [],
  };
  const spelled: NonNullable<Options["spelled"]> = {};
  const flags = { help: false, version: false, licenses: false, noColors: false, debug: false };
  let hostdir: string | undefined;
  const labels: string[] = [];
  let cleared = false;
  const wrong: { error: VmError; allowed: string }[] = [];
  /** @param before earlier values of a setting that takes several: no item may contradict another one */
  const check = (
    setting: keyof RawSettings,
    value: string,
    spelling: string,
    before: readonly string[] = [],
  ): string => {
    const alone = parseSetting(setting, value);
    const parsed = "value" in alone && before.length > 0 ? parseSetting(setting, [...before, value]) : alone;
    if ("value" in parsed) return value;
    const { given = value, allowed, meant } = parsed;
    // The value is a word of its own, or the end of one.
    const line =
      meant === undefined || meant === given
        ? undefined
        : words.map((word) => (word.endsWith(value) ? word.replace(given, meant) : word));
    wrong.push({ error: badOption(spelling, given, allowed, line && formatLine(prog, line)), allowed });
    return value;
  };
  for (const { option, spelling, value = "" } of [...found, ...batch.flatMap(({ globals }) => globals)]) {
    const { effect } = option;
    switch (effect.kind) {
      case "flag":
        flags[effect.flag] = true;
        break;
      case "hostdir":
        if (value === "") throw badOption(spelling, value, "a directory");
        hostdir = value;
        break;
      case "label":
        if (!isLabel(value)) throw badOption(spelling, value, LABEL_SYNTAX);
        labels.push(value);
        break;
      case "set":
        settings[effect.setting] = check(effect.setting, effect.value ?? value, spelling);
        spelled[effect.setting] = `--${option.long}`;
        break;
      case "add":
        spelled[effect.setting] = `--${option.long}`;
        if (value === "") {
          // [compat] IMAGES contains the VM's own disks: only earlier --image options are removed.
          if (effect.setting === "IMAGES") cleared = true;
          else settings[effect.setting] = [];
          additions[effect.setting] = [];
        } else {
          const before = additions[effect.setting];
          before.push(check(effect.setting, value, spelling, before));
        }
    }
  }
  if (wrong.length > 0) throw allWrong(wrong);
  if (help?.length === 0) flags.help = true;
  for (const { command, args } of batch)
    if (command.name === "set") refuseCommandLabels([args.assignment ?? []].flat().map(String));
  if (labels.length > 0) requireSelecting(batch, hostdir);
  const options: Options = {
    settings,
    additions,
    hostdir,
    spelled,
    ...(cleared && { imagesCleared: true as const }),
    ...(labels.length > 0 && { labels: [...new Set(labels)] }),
  };
  return { ...flags, options, batch };
}

/** Options that are answered without running or checking a command. */
const isAnswer = ({ effect }: OptionSpec): boolean =>
  effect.kind === "flag" && effect.flag !== "noColors" && effect.flag !== "debug";

/** `help` and `help COMMAND`. @returns undefined where something else is asked for, nothing for help in general */
function askedFor(rest: readonly string[], prog: string): Invocation[] | undefined {
  const [word, name] = rest;
  if (word !== "help" && word !== "@help") return undefined;
  if (name === undefined || name.startsWith("-")) return [];
  const command = COMMANDS.get(referenceOf(name) ?? name);
  if (!command) throw unknownCommand(name, prog, (found) => ["help", found]);
  return parseBatch([command.name, "-h"], prog);
}

/** The options before the first command. Options of the command after them are not included. */
function readLeading(words: readonly string[], prog: string): ReturnType<typeof parseOptions<OptionSpec>> {
  const hint = `all options: ${prog} -h`;
  try {
    return parseOptions(words, GLOBAL_OPTIONS, hint);
  } catch (error) {
    if (!(error instanceof UnknownOption)) throw error;
    const line = moveBehind(words, error.spelling, prog, MAX_MOVES);
    throw line ? new UnknownOption(error.spelling, `did you mean: ${formatLine(prog, line)}`) : error;
  }
}

/** More options than this in the wrong place are not a slip. */
const MAX_MOVES = 5;

/**
 * `--force destroy` → `destroy --force`
 * @returns a line that is right, or undefined
 */
function moveBehind(
  words: readonly string[],
  spelling: string,
  prog: string,
  moves: number,
): readonly string[] | undefined {
  const at = words.findIndex((word) => word === spelling || word.startsWith(`${spelling}=`));
  if (at < 0 || moves === 0) return undefined;
  for (const [index, word] of words.entries()) {
    const command = index > at ? COMMANDS.get(referenceOf(word) ?? word) : undefined;
    const near = command?.options.filter(
      ({ long, short }) => `-${short}` === spelling || `--${long}`.startsWith(spelling),
    );
    if (near?.length !== 1) continue;
    const count = near[0]!.value !== undefined && words[at] === spelling ? 2 : 1;
    if (index < at + count) continue;
    const moved = [
      ...words.slice(0, at),
      ...words.slice(at + count, index + 1),
      ...words.slice(at, at + count),
      ...words.slice(index + 1),
    ];
    try {
      parseArgv(moved, prog);
      return moved;
    } catch (error) {
      return error instanceof UnknownOption ? moveBehind(moved, error.spelling, prog, moves - 1) : undefined;
    }
  }
  return undefined;
}

/** One error for all bad values. */
function allWrong(wrong: readonly { error: VmError; allowed: string }[]): VmError {
  if (wrong.length === 1) return wrong[0]!.error;
  const lines = wrong.map(({ error, allowed }) => `${error.message} (allowed: ${allowed})`);
  return new VmError("usage", `${wrong.length} options are wrong:\n  ${lines.join("\n  ")}`);
}
