import { bashAssignment } from "../config/assignment.ts";
import { buildDefaults } from "../config/defaults.ts";
import { readSettings, usableSettings, type Loaded, type UnknownVariable } from "../config/load.ts";
import { type Origin } from "../config/origin.ts";
import { isSettingName, parseSetting, SECRETS, SETTING_NAMES, type SettingName } from "../config/schema.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { toJson } from "../lib/json.ts";
import { log } from "../lib/log.ts";
import { plain } from "../lib/text.ts";
import { isOneEditFrom, nearest } from "../lib/nearest.ts";
import { resolveWork, type Work } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import { findHostdir, sourcesOf, type Vm } from "../vm/find.ts";

/** The readable settings. */
export interface SettingsInForce extends Pick<Loaded, "raw" | "origins" | "userShell" | "userNotify"> {
  hostdir: string;
  work: Work;
  /** Errors in the others. */
  error: VmError | undefined;
  unknown: readonly UnknownVariable[];
}

/** Reads the settings of the VM on the command line, continuing after errors. */
export async function readInForce(context: Context): Promise<SettingsInForce> {
  const hostdir = findHostdir(context);
  let work: Work = { state: "none" };
  let error: VmError | undefined;
  try {
    work = resolveWork(hostdir);
  } catch (failure) {
    if (!(failure instanceof VmError)) throw failure;
    error = failure;
  }
  const read = await readSettings(sourcesOf(context, hostdir, work));
  // See display.ts: the password may come from the environment, if no file sets one.
  if (read.raw.SPICE_PASSWORD.length === 0 && context.env.SPICE_PASSWORD)
    read.origins.SPICE_PASSWORD = { kind: "environment" };
  return { ...read, hostdir, work, error: error ?? read.error };
}

/** The VM with defaults for invalid settings. */
export const usableVm = (context: Context, found: SettingsInForce): Vm => ({
  ...found,
  ...usableSettings(context, found.raw),
});

/** Shorter names of the user's own are like a setting by chance. */
const MIN_LETTERS = 4;

/** A line for each variable that was probably meant as a setting. */
export const findMisspelt = ({ unknown }: SettingsInForce): string[] =>
  unknown.flatMap(({ name, file, line }) => {
    const similar =
      name.length < MIN_LETTERS ? undefined : SETTING_NAMES.find((one) => isOneEditFrom(name, one));
    return similar === undefined
      ? []
      : [`${plain(file)}:${line}: ${plain(name)} is no setting; did you mean ${similar}?`];
  });

const isUsable = (name: SettingName, raw: SettingsInForce["raw"]): boolean =>
  "value" in parseSetting(name, raw[name]);

/** @throws 64 for an unknown setting */
export function parseNames(words: readonly string[] = []): SettingName[] {
  return words.map((word) => {
    if (isSettingName(word)) return word;
    const similar = nearest(
      word,
      SETTING_NAMES.map((name) => name.toLowerCase()),
    );
    throw new VmError("usage", `config: unknown setting ${word}`, {
      hint: `${similar ? `did you mean ${similar.toUpperCase()}? ${commandLine("config", similar.toUpperCase())}\n` : ""}list all settings: ${commandLine("config")}`,
    });
  });
}

/**
 * Prints settings with their origins, as lines that bash and the program itself can read, or as JSON.
 * @param names these only; none: all
 * @throws the errors in the settings, after printing the valid ones
 */
export async function showConfig(
  context: Context,
  names: readonly SettingName[],
  json: boolean,
): Promise<void> {
  const found = await readInForce(context);
  const shown = (names.length > 0 ? [...new Set(names)] : SETTING_NAMES).filter((name) =>
    isUsable(name, found.raw),
  );
  context.print(json ? formatConfigJson(shown, found) : formatConfig(shown, found, buildDefaults(context)));
  findMisspelt(found).forEach((text) => log.warn(text));
  if (found.error) throw found.error;
}

const isSet = (name: SettingName, { raw, origins }: Pick<SettingsInForce, "raw" | "origins">): boolean =>
  raw[name].length > 0 || origins[name].kind === "environment";

function formatConfigJson(
  names: readonly SettingName[],
  { raw, origins }: Pick<SettingsInForce, "raw" | "origins">,
): string {
  const entries = names.map((name) => {
    const origin = origins[name];
    if (SECRETS.has(name)) return [name, { set: isSet(name, { raw, origins }), origin }];
    const parsed = parseSetting(name, raw[name]) as { value: unknown };
    return [name, { value: parsed.value ?? null, raw: raw[name], origin }];
  });
  return toJson(Object.fromEntries(entries));
}

/** Longer lines are followed by the comment directly. */
const MAX_COLUMN = 48;

/** A value may have several lines. */
const lastLength = (text: string): number => text.length - text.lastIndexOf("\n") - 1;

/** Pure: one assignment a line, with its origin in a comment. Secrets are comments only. */
export function formatConfig(
  names: readonly SettingName[],
  { raw, origins }: Pick<SettingsInForce, "raw" | "origins">,
  defaults: SettingsInForce["raw"],
): string {
  const rows = names.map((name) => {
    if (SECRETS.has(name))
      return [`# ${name} is ${isSet(name, { raw, origins }) ? "" : "not "}set`, originOf(origins[name])];
    // Assigned to a default array, a scalar would leave the other elements.
    const isList = typeof defaults[name] !== "string";
    const value = isList ? [raw[name]].flat().filter((item) => item !== "") : raw[name];
    return [bashAssignment(name, value), originOf(origins[name])];
  }) as [string, string][];
  const lengths = rows.map(([text]) => lastLength(text)).filter((length) => length <= MAX_COLUMN);
  const column = Math.max(0, ...lengths);
  return rows
    .map(([text, origin]) => `${text}${" ".repeat(Math.max(0, column - lastLength(text)))}  # ${origin}\n`)
    .join("");
}

function originOf(origin: Origin): string {
  // A file's name may contain control characters.
  return plain(`${describePlace(origin)}${origin.added ? ", and the command line" : ""}`);
}

function describePlace(origin: Origin): string {
  switch (origin.kind) {
    case "default":
      return "built-in default";
    case "file":
      return `${origin.file}:${origin.line}`;
    case "option":
      return origin.option ?? "command line";
    case "environment":
      return "environment";
  }
}
