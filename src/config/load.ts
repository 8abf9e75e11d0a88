import { join } from "node:path";
import { commandLine, programLine } from "../lib/command-line.ts";
import { SignalError, VmError } from "../lib/errors.ts";
import { lstatOf } from "../lib/read-file.ts";
import { badOption, settingsError, type Complaint } from "./complaint.ts";
import { buildDefaults, defaultDisks, type Surroundings } from "./defaults.ts";
import type { SettingValue } from "./shell-expand.ts";
import type { Assignment } from "./literal.ts";
import { checkLayer, readLayer, type Sources } from "./load-layer.ts";
import { addOwn, type OwnVariables } from "./load-own.ts";
import { GUEST_FORMAT_NAME } from "./guest-format.ts";
import { mergeSettings } from "./merge.ts";
import {
  IDENTITY,
  OF_USER,
  isSettingName,
  mapSettings,
  parseSetting,
  parseSettings,
  type RawSettings,
  type SettingName,
  type Settings,
} from "./schema.ts";
import { ARCH, parseArch } from "../machine/arch.ts";
import { ARCHES, type Arch } from "../machine/types.ts";
import { shellQuote } from "../lib/shell.ts";
import { isOn, listOf, scalarOf } from "./values.ts";
import type { Origin } from "./origin.ts";

export interface Loaded {
  settings: Settings;
  raw: Record<SettingName, SettingValue>;
  origins: Record<SettingName, Origin>;
  /** Shell state set by the user's own files (`vm.conf`), as bash text for hooks and check-media. */
  userShell: string;
  /** What the host's and the user's own files say of SNAPSHOT_NOTIFY, without the VM's. */
  userNotify: SettingValue;
  /** The architecture in the VM's own file, without the command line. */
  ownArch?: Arch | undefined;
}

/** Settings as written. */
interface ReadSettings extends Omit<Loaded, "settings"> {
  error: VmError | undefined;
  /** A file of settings could not be read, or is lost. */
  unread: boolean;
  /** Variables in the files that are no settings: of the user's own, or misspelt. */
  unknown: readonly UnknownVariable[];
}

export interface UnknownVariable {
  name: string;
  file: string;
  line: number;
}

/** Reads all layers in order of precedence, and parses them. @throws one error that lists all errors */
export async function loadSettings(sources: Sources): Promise<Loaded> {
  const { error, unread: _, unknown: __, ...read } = await readSettings(sources);
  if (error) throw error;
  return { settings: parseSettings(read.raw), ...read };
}

/**
 * The same with built-in defaults for invalid values, for commands that must work nevertheless.
 * @returns the settings, and the error that lists all errors
 */
export async function loadUsable(
  sources: Sources,
): Promise<Loaded & Pick<ReadSettings, "error" | "unread"> & { written: ReadSettings["raw"] }> {
  const read = await readSettings(sources);
  return { ...read, written: read.raw, ...usableSettings(sources, read.raw) };
}

/** Pure: valid values, and defaults for the others. */
export function usableSettings(
  surroundings: Surroundings,
  given: Record<SettingName, SettingValue>,
): Pick<Loaded, "raw" | "settings"> {
  const defaults = { ...buildDefaults(surroundings), QEMUARCH: ARCHES[0] };
  const usable = (name: SettingName): boolean => "value" in parseSetting(name, given[name]);
  const raw = mapSettings(given, (value, name) => (usable(name) ? value : defaults[name]));
  return { raw, settings: parseSettings(raw) };
}

/**
 * The same, continuing after errors.
 * @returns the values as written, also invalid ones, and the error that lists all errors
 */
export async function readSettings(sources: Sources): Promise<ReadSettings> {
  const own: OwnVariables = { text: "", variables: {} };
  let error: VmError | undefined;
  let unread = false;
  let raw: Record<SettingName, SettingValue> = buildDefaults(sources);
  const origins = mapSettings<SettingValue, Origin>(raw, () => ({ kind: "default" }));
  const complaints: Complaint[] = [];
  const unknown: UnknownVariable[] = [];
  const files = [
    { file: `/etc/${sources.prog}.conf`, vm: false },
    { file: join(sources.home, ".config", `${sources.prog}.conf`), vm: false },
    ...(sources.guestEnv ? [{ file: sources.guestEnv, vm: true }] : []),
  ];
  if (!sources.guestEnv) error ??= lostSettings(sources, [], false);
  if (error) unread = true;
  let userNotify = raw.SNAPSHOT_NOTIFY;
  for (const { file, vm } of files) {
    const read = await readLayer(file, raw, sources, vm, own).catch((failure: unknown) => {
      if (!(failure instanceof VmError) || failure instanceof SignalError) throw failure;
      error ??= failure;
      unread = true;
    });
    if (!read) continue;
    if (vm) error ??= lostSettings(sources, "complaint" in read ? undefined : read.assignments, read.blank);
    if ("complaint" in read || (vm && read.blank && error)) unread = true;
    if ("complaint" in read) {
      complaints.push(read.complaint);
      continue;
    }
    const layer: RawSettings = {};
    if (read.userShell !== undefined) own.text = read.userShell;
    if (!vm && sources.mayUseBash) addOwn(own, file, read.assignments);
    // Of a version before layouts, not of the earlier program.
    if (vm && read.assignments.some(({ name }) => name === GUEST_FORMAT_NAME)) raw.LAYOUT = "0";
    for (const { name, value, line } of read.assignments) {
      if (!isSettingName(name)) unknown.push({ name, file, line });
      if (!isSettingName(name) || (vm ? OF_USER : IDENTITY).has(name)) continue;
      layer[name] = value;
      origins[name] = { kind: "file", file, line };
    }
    complaints.push(...checkLayer(layer, file, origins));
    raw = mergeSettings(layer, raw);
    if (!vm) userNotify = raw.SNAPSHOT_NOTIFY;
  }
  if (complaints.length > 0) error ??= settingsError(complaints);

  const { QEMUARCH: stored } = origins;
  const ownArch = stored.kind === "file" && stored.file === sources.guestEnv ? raw.QEMUARCH : undefined;

  raw = mergeSettings(sources.options, raw);
  for (const name of Object.keys(sources.options) as SettingName[]) {
    const option = sources.spelled?.[name];
    origins[name] = { kind: "option", ...(option !== undefined && { option }) };
  }
  for (const [name, items] of Object.entries(sources.additions) as ["IMAGES", string[]][]) {
    if (items.length === 0) continue;
    const base = [raw[name]].flat().filter((item) => item !== "");
    raw[name] = [...base, ...items];
    const option = sources.spelled?.[name];
    origins[name] =
      base.length > 0
        ? { ...origins[name], added: true }
        : { kind: "option", ...(option !== undefined && { option }) };
    // Duplicates are found only in the combined list.
    const parsed = parseSetting(name, raw[name]);
    if (!("value" in parsed))
      error ??= badOption(option ?? name, parsed.given ?? items.join(" "), parsed.allowed);
  }
  const arch = parseArch(scalarOf(raw.QEMUARCH));
  if (origins.RESCUE.kind === "default") raw.RESCUE = `rescue-${arch ?? sources.hostArch}`;
  if (arch) error ??= settleByArch(arch, raw, origins);
  settleFirstCard(raw, origins);
  if (origins.QEMUARCH.kind === "default" && !("value" in parseSetting("QEMUARCH", raw.QEMUARCH)))
    error ??= new VmError(
      "unavailable",
      `cannot use this host's architecture (${sources.hostArch}) for guests: not supported`,
      {
        hint: `choose another one: ${programLine("--arch=x86_64")} …`,
      },
    );
  return {
    raw,
    origins,
    userShell: own.text,
    userNotify: sources.options.SNAPSHOT_NOTIFY ?? userNotify,
    ownArch: ownArch === undefined ? undefined : parseArch(scalarOf(ownArch)),
    error,
    unread,
    unknown,
  };
}

/**
 * Detects a settings file emptied by a power cut or a mistake, with which the VM would run without its disks.
 * @param assignments those of the VM's own file; absent if it cannot be read
 * @param blank it is there, and holds nothing
 * @returns the error (78), or undefined
 */
function lostSettings(
  { guestEnv, guestEnvPlace, lastGuestEnv, workingDisks = [] }: Sources,
  assignments: readonly Assignment[] | undefined,
  blank: boolean,
): VmError | undefined {
  const without = assignments?.every(({ name }) => name !== "IMAGES") && workingDisks.length > 0;
  if (!blank && !without) return undefined;
  const file = guestEnv ?? guestEnvPlace;
  const reason = blank
    ? "it is empty"
    : guestEnv === undefined
      ? `it is missing, and there is ${workingDisks.join(", ")}`
      : `it has no IMAGES=, and there is ${workingDisks.join(", ")}`;
  const hint = lstatOf(lastGuestEnv)
    ? `use the settings of the last snapshot: cp ${shellQuote(lastGuestEnv)} ${shellQuote(file)}; for its disks as well: ${commandLine("restore")}`
    : `add at least the disks, as there is no snapshot to copy from: echo 'IMAGES=("VIRT=disk-0.img")' >> ${shellQuote(file)}`;
  return new VmError("config", `cannot use the settings in ${file}: ${reason}`, { hint });
}

/**
 * Sets defaults that depend on the guest's architecture: bus of disks, and firmware if there is only one kind.
 * @returns the error in an option, if any
 */
function settleByArch(
  arch: Arch,
  raw: Record<SettingName, SettingValue>,
  origins: Record<SettingName, Origin>,
): VmError | undefined {
  const { diskBus, boots } = ARCH[arch];
  if (origins.DISKS.kind === "default") raw.DISKS = defaultDisks(diskBus);
  const [only, other] = boots;
  if (other !== undefined) return undefined;
  const uefi = parseSetting("UEFI", raw.UEFI);
  const forced = only === "uefi";
  const typed = origins.UEFI.kind === "option";
  // A file for all guests does not apply to these.
  raw.UEFI = forced ? "1" : "";
  if (!typed || !("value" in uefi) || uefi.value === forced) return undefined;
  return new VmError("usage", `${arch} guests ${forced ? "boot by UEFI only" : "have no UEFI"}`, {
    hint: `leave out ${forced ? "--no-uefi" : "--uefi"}`,
  });
}

/** NETWORKS decides on the first card, too, but for `--netdev` and `--no-netdev`. */
function settleFirstCard(raw: Record<SettingName, SettingValue>, origins: Record<SettingName, Origin>): void {
  const [first, ...others] = listOf(raw.NETWORKS);
  if (first === undefined) return;
  const there = first !== "none";
  const typed = origins.USENETDEV.kind === "option" ? isOn(raw.USENETDEV) : there;
  raw.USENETDEV = typed ? "1" : "";
  if (typed !== there) raw.NETWORKS = [typed ? "user" : "none", ...others];
}

/**
 * Merges a rescue profile's settings, which the VM's own file and the command line override. Only names that start with
 * RESCUE_ are used.
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
  return { ...loaded, settings: parseSettings(raw), raw, origins };
}
