import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { hasErrno, reasonOf, VmError } from "../lib/errors.ts";
import { badOption, settingsError, type Complaint } from "./complaint.ts";
import { buildDefaults, type Surroundings } from "./defaults.ts";
import { evaluateWithBash } from "./bash.ts";
import { readAssignments, type Assignment, type SettingValue } from "./literal.ts";
import { lookupIn } from "./lookup.ts";
import { mergeSettings } from "./merge.ts";
import {
  isSettingName,
  parseSetting,
  parseSettings,
  SETTING_NAMES,
  type RawSettings,
  type SettingName,
  type Settings,
} from "./schema.ts";
import { distrust } from "./trust.ts";
import { parseArch } from "../machine/arch.ts";
import { scalarOf } from "./values.ts";

/** Where a setting's value comes from. */
export type Origin = { kind: "default" } | { kind: "file"; file: string; line: number } | { kind: "option" };

export interface Sources extends Surroundings {
  hostdir: string;
  workdir: string | undefined;
  /** The VM's own file, if it has one. */
  guestEnv: string | undefined;
  env: Record<string, string | undefined>;
  /** Settings from the command line: what replaces, and what is added to lists. */
  options: RawSettings;
  additions: Partial<Record<"FORWARDS" | "IMAGES" | "SHARES", string[]>>;
  /** False where many VMs are looked over: nothing is evaluated then. */
  mayUseBash: boolean;
}

export interface Loaded {
  settings: Settings;
  raw: Record<SettingName, SettingValue>;
  origins: Record<SettingName, Origin>;
}

type RawComplete = Record<SettingName, SettingValue>;

/** Configuration files are small; a larger one is a mistake (a disk image, say). */
const MAX_FILE_BYTES = 1 << 20;

/** Other bytes would silently become other characters, and a path another path. */
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads all layers, weakest first, and understands them. Throws one error that lists everything wrong. */
export async function loadSettings(sources: Sources): Promise<Loaded> {
  let raw: RawComplete = buildDefaults(sources);
  const origins = Object.fromEntries(SETTING_NAMES.map((name) => [name, { kind: "default" }])) as Record<
    SettingName,
    Origin
  >;
  const complaints: Complaint[] = [];
  const files = [
    { file: `/etc/${sources.prog}.conf`, vm: false },
    { file: join(sources.home, ".config", `${sources.prog}.conf`), vm: false },
    ...(sources.guestEnv ? [{ file: sources.guestEnv, vm: true }] : []),
  ];
  for (const { file, vm } of files) {
    const read = await readLayer(file, raw, sources, vm);
    if (!read) continue;
    if ("complaint" in read) {
      complaints.push(read.complaint);
      continue;
    }
    const layer: RawSettings = {};
    for (const { name, value, line } of read.assignments) {
      if (!isSettingName(name)) continue;
      layer[name] = value;
      origins[name] = { kind: "file", file, line };
    }
    complaints.push(...checkLayer(layer, file, origins));
    raw = mergeSettings(layer, raw);
  }
  if (complaints.length > 0) throw settingsError(complaints);

  raw = mergeSettings(sources.options, raw);
  for (const name of Object.keys(sources.options)) origins[name as SettingName] = { kind: "option" };
  for (const [name, items] of Object.entries(sources.additions) as ["IMAGES", string[]][]) {
    if (items.length === 0) continue;
    const base = [raw[name]].flat().filter((item) => item !== "");
    raw[name] = [...base, ...items];
    // A duplicate only shows once both lists are one.
    const parsed = parseSetting(name, raw[name]);
    if (!("value" in parsed)) throw badOption(name, parsed.given ?? items.join(" "), parsed.allowed);
  }
  if (origins.RESCUE.kind === "default")
    raw.RESCUE = `rescue-${parseArch(scalarOf(raw.QEMUARCH)) ?? sources.hostArch}`;
  if (origins.QEMUARCH.kind === "default" && !("value" in parseSetting("QEMUARCH", raw.QEMUARCH)))
    throw new VmError(
      "unavailable",
      `guests of this host's architecture (${sources.hostArch}) are not supported`,
      {
        hint: "name another one: vm --arch=x86_64 …",
      },
    );
  return { settings: parseSettings(raw), raw, origins };
}

/**
 * Lays a rescue profile's settings under what the VM itself and the command line say. Only names that begin
 * with RESCUE_ count in it.
 */
export async function loadProfile(sources: Sources, loaded: Loaded, file: string): Promise<Loaded> {
  const read = await readLayer(file, loaded.raw, sources, true);
  if (!read) return loaded;
  if ("complaint" in read) throw settingsError([read.complaint]);
  const raw = { ...loaded.raw };
  const origins = { ...loaded.origins };
  const layer: RawSettings = {};
  for (const { name, value, line } of read.assignments) {
    if (!isSettingName(name) || !name.startsWith("RESCUE_")) continue;
    const origin = loaded.origins[name];
    if (origin.kind === "option" || (origin.kind === "file" && origin.file === sources.guestEnv)) continue;
    layer[name] = value;
    origins[name] = { kind: "file", file, line };
  }
  const complaints = checkLayer(layer, file, origins);
  if (complaints.length > 0) throw settingsError(complaints);
  Object.assign(raw, layer);
  return { settings: parseSettings(raw), raw, origins };
}

async function readLayer(
  file: string,
  before: RawComplete,
  sources: Sources,
  vm: boolean,
): Promise<{ assignments: Assignment[] } | { complaint: Complaint } | undefined> {
  let content: string;
  try {
    const stats = statSync(file);
    if (!stats.isFile()) return { complaint: { file, line: 1, message: "not a regular file" } };
    if (stats.size > MAX_FILE_BYTES)
      return { complaint: { file, line: 1, message: "too large for a settings file" } };
    content = UTF8.decode(readFileSync(file));
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR")) return undefined;
    const reason = error instanceof TypeError ? "it is not UTF-8 text" : reasonOf(error);
    throw new VmError("config", `cannot read ${file}: ${reason}`, { cause: error });
  }
  const known = builtinVariables(sources);
  const result = readAssignments(content, lookupIn(before, known, sources.env));
  if (result.kind === "values") return { assignments: result.assignments };
  if (result.kind === "error") return { complaint: { file, ...result } };
  const needed = `this needs bash (${result.reason})`;
  if (!sources.mayUseBash)
    return { complaint: { file, line: result.line, message: `${needed}, which is not asked here` } };
  const reason = distrust(file);
  if (reason)
    return {
      complaint: {
        file,
        line: result.line,
        message: `${needed}, but ${reason}`,
        hint: "write plain NAME=value lines, or make the file and its directory yours alone (chmod go-w)",
      },
    };
  const evaluated = await evaluateWithBash(file, { ...known, ...before }, SETTING_NAMES, vm);
  if ("complaint" in evaluated)
    return {
      complaint: {
        file,
        line: result.line,
        message: evaluated.complaint,
        hint: vm ? "a VM's guest.env may hold settings and conditions, but start no program" : undefined,
      },
    };
  const assignments = SETTING_NAMES.flatMap((name) => {
    const value = evaluated.variables[name];
    const same = value === undefined || JSON.stringify(value) === JSON.stringify(before[name]);
    return same ? [] : [{ name, value, line: lineOf(content, name) }];
  });
  return { assignments };
}

/** Variables that files may refer to besides settings. */
function builtinVariables(sources: Sources): Record<string, string> {
  return {
    PROG: sources.prog,
    HOME: sources.home,
    HOSTDIR: sources.hostdir,
    WORKDIR: sources.workdir ?? "",
  };
}

/** The last line that assigns NAME, for files that only bash understands. */
function lineOf(content: string, name: string): number {
  const lines = content.split("\n");
  const at = lines.findLastIndex((line) => new RegExp(`\\b${name}\\+?=`).test(line));
  return Math.max(at, 0) + 1;
}

function checkLayer(layer: RawSettings, file: string, origins: Record<SettingName, Origin>): Complaint[] {
  const complaints: Complaint[] = [];
  for (const [name, raw] of Object.entries(layer) as [SettingName, SettingValue][]) {
    const parsed = parseSetting(name, raw);
    const origin = origins[name];
    if ("value" in parsed || origin.kind !== "file") continue;
    const given = parsed.given ?? [raw].flat().join(" ");
    complaints.push({
      file,
      line: origin.line,
      message: `${name}='${given}' is not allowed`,
      hint: `allowed: ${parsed.allowed}`,
    });
  }
  return complaints.toSorted((a, b) => a.line - b.line);
}
