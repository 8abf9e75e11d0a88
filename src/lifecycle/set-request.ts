import { badOption } from "../config/complaint.ts";
import { buildDefaults } from "../config/defaults.ts";
import {
  type AddedList,
  isSettingName,
  parseSetting,
  SECRETS,
  SETTING_NAMES,
  type RawSettings,
  type SettingName,
} from "../config/schema.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { requireGuestName } from "./guest-name.ts";
import { nearest } from "../lib/nearest.ts";
import type { Options } from "../vm/context.ts";

/** Lists that options add to, and guest.env stores. */
export type StoredList = Exclude<AddedList, "IMAGES">;

export interface SetRequest {
  /** Replace the stored values; of a setting that is no list a string. */
  values: RawSettings;
  /** Added to stored lists. */
  additions: Partial<Record<StoredList, string[]>>;
  unset: SettingName[];
}

interface SetWords {
  words: string[];
  cpu: string | undefined;
  unset: string[];
}

/** Settings that other commands change, or that do not belong into guest.env. */
const ELSEWHERE: Partial<Record<SettingName, string>> = {
  UUID: `assign a new one: ${commandLine("identity", "--new")}`,
  UUID_FORMER: `assign a new UUID: ${commandLine("identity", "--new")}`,
  DISKS: `only create uses it; change disks: ${commandLine("disk", "add")}`,
  IMAGES: `change disks: ${commandLine("disk", "add")}`,
  IMAGE_FORMATS: `change disks: ${commandLine("disk", "add")}`,
  IMAGE_NUMBERS: `change disks: ${commandLine("disk", "add")}`,
  CONTROLLER_PLACES: `change disks: ${commandLine("disk", "add")}`,
  SPICE_PASSWORD: "every user of this host sees a command line: write it into the file by hand",
  SNAPSHOT_REPO: "it is not read from guest.env: use the general settings file",
  SNAPSHOT_PASSWORD_FILE: "it is not read from guest.env: use the general settings file",
  JAIL: "it is not read from guest.env: use the general settings file",
  SNAPSHOT_NOTIFY: "it is not read from guest.env: use the general settings file",
};

/** In guest.env FORWARDS is one text. */
const TEXT_LISTS: ReadonlySet<SettingName> = new Set(["FORWARDS", "RESCUE_FORWARDS"]);
const DEFAULTS = buildDefaults({ prog: "", home: "", hostArch: "", libexec: "" });
const takesList = (name: SettingName): boolean => TEXT_LISTS.has(name) || typeof DEFAULTS[name] !== "string";

/** As `create` stores it, with `hostfwd=`; as it is if it is malformed. */
function forwardsText(items: readonly string[]): string {
  const parsed = parseSetting("FORWARDS", items.join(","));
  return ("value" in parsed ? (parsed.value as string[]) : items).join(",");
}

/** The value as guest.env holds it. */
export const storedForm = (name: SettingName, items: readonly string[]): SettingValue => {
  // As they are read: one word may hold several.
  const each = name === "LABELS" ? items.flatMap((item) => item.split(/[\s,]+/)) : items;
  const kept = each.filter((item) => item !== "");
  if (TEXT_LISTS.has(name)) return forwardsText(kept);
  return takesList(name) ? kept : (items[0] ?? "");
};

/**
 * @param options of the command line, which are stored, too
 * @throws 64
 */
export function parseSetRequest({ words, cpu, unset }: SetWords, options: Options): SetRequest {
  const given = new Map<SettingName, string[]>();
  for (const word of words) {
    const [, name = "", value] = /^([^=]*)=([^]*)$/.exec(word) ?? [];
    if (value === undefined) throw badOption("set", word, "SETTING=VALUE", SETTING_EXAMPLE);
    const setting = settingNamed(name, value);
    const items = given.get(setting) ?? [];
    if (items.length > 0 && !takesList(setting)) throw twice(setting);
    given.set(setting, [...items, value]);
  }
  const values: RawSettings = {};
  for (const [name, items] of given) values[name] = checked(name, storedForm(name, items));
  for (const [name, value] of Object.entries({
    ...options.settings,
    ...(cpu !== undefined && { CPU: cpu }),
  })) {
    const setting = settingNamed(name, "");
    if (given.has(setting)) throw twice(setting);
    values[setting] = checked(setting, storedForm(setting, [value].flat()));
  }
  const { IMAGES = [], ...lists } = options.additions;
  if (IMAGES.length > 0 || options.imagesCleared) settingNamed("IMAGES", "");
  const additions: SetRequest["additions"] = Object.fromEntries(
    Object.entries(lists).filter(([, items]) => items.length > 0),
  );
  for (const name of Object.keys(additions) as SettingName[]) if (given.has(name)) throw twice(name);
  const removed = unset.map((name) => settingNamed(name));
  for (const name of removed) if (name in values || name in additions) throw twice(name);
  if (Object.keys(values).length + Object.keys(additions).length + removed.length === 0)
    throw new VmError("usage", "set: what to change is missing", { hint: `such as: ${SETTING_EXAMPLE}` });
  return { values, additions, unset: removed };
}

const SETTING_EXAMPLE = commandLine("set", "-m", "4G", "CPU=host");

const twice = (name: SettingName): VmError => new VmError("usage", `set: ${name} is given twice`);

function similarSetting(name: string): string {
  const similar = nearest(
    name,
    SETTING_NAMES.map((one) => one.toLowerCase()),
  );
  return similar === undefined ? "" : `did you mean ${similar.toUpperCase()}? `;
}

/** @param value for the hint; absent: it is to be unset */
function settingNamed(name: string, value?: string): SettingName {
  if (!isSettingName(name)) {
    const upper = name.toUpperCase();
    const line = commandLine("set", value === undefined ? `--unset=${upper}` : `${upper}=${value}`);
    throw new VmError("usage", `set: there is no setting '${name}'`, {
      hint: isSettingName(upper)
        ? `did you mean: ${line}`
        : `${similarSetting(name)}list all: ${commandLine("config")}`,
    });
  }
  const hint = ELSEWHERE[name];
  if (hint !== undefined && (value !== undefined || !SECRETS.has(name)))
    throw new VmError("usage", `set: ${name} cannot be changed here`, { hint });
  return name;
}

function checked(name: SettingName, value: SettingValue): SettingValue {
  const parsed = parseSetting(name, value);
  if (name === "GUESTNAME") requireGuestName(storedForm(name, [value].flat()) as string);
  if ("value" in parsed) return value;
  throw badOption(name, parsed.given ?? [value].flat().join(" "), parsed.allowed);
}
