import { readSmallBytes, realPath } from "../lib/read-file.ts";
import { briefOf, hasErrno, VmError } from "../lib/errors.ts";
import type { Complaint } from "./complaint.ts";
import type { Surroundings } from "./defaults.ts";
import { isBlank } from "./check-guest-env.ts";
import { refuseNewer } from "./guest-format.ts";
import type { SettingValue } from "./shell-expand.ts";
import { readAssignments, type Assignment } from "./literal.ts";
import type { Origin } from "./origin.ts";
import type { OwnVariables } from "./load-own.ts";
import { lookupIn } from "./lookup.ts";
import {
  type AddedList,
  parseSetting,
  SECRETS,
  SETTING_NAMES,
  type RawSettings,
  type SettingName,
} from "./schema.ts";
import { REPLACEMENT } from "../lib/text.ts";
import { distrust } from "../lib/trust.ts";

export interface Sources extends Surroundings {
  hostdir: string;
  workdir: string | undefined;
  /** The VM's own file, if it has one. */
  guestEnv: string | undefined;
  /** Its path, and that of the last snapshot's, for hints. */
  guestEnvPlace: string;
  lastGuestEnv: string;
  env: Record<string, string | undefined>;
  /** `disk-N.img` in WORKDIR: settings that name none of them are incomplete. */
  workingDisks?: readonly string[];
  /** Settings from the command line: replacing values, and additions to lists. */
  options: RawSettings;
  additions: Partial<Record<AddedList, string[]>>;
  /** The options that set these, as typed. */
  spelled?: Partial<Record<SettingName, string>> | undefined;
  /** False if many VMs are listed: no file is evaluated by bash. */
  mayUseBash: boolean;
}

type RawComplete = Record<SettingName, SettingValue>;

/**
 * Strict: otherwise invalid bytes would silently change, and a path become another one. The decoder takes longer to make
 * than all else here: it is asked only whether a replacement character is part of the text.
 * @throws TypeError
 */
function decodeStrictly(bytes: Buffer): string {
  const text = bytes.toString();
  return text.includes(REPLACEMENT)
    ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
    : text;
}

/** The content of one file. */
interface Layer {
  assignments: Assignment[];
  /** It holds nothing, or zeroes. */
  blank: boolean;
  /** Shell state set by this and earlier files, if bash evaluated the file. */
  userShell?: string;
}

/**
 * Reads one file; undefined if it does not exist.
 * @param userShell shell state set by earlier files
 * @param vm a guest.env of a VM or rescue, of unknown origin: read literally, without following symlinks
 * @throws VmError 73 without permission, 78 if it cannot be read
 */
export async function readLayer(
  file: string,
  before: RawComplete,
  sources: Sources,
  vm: boolean,
  { text: userShell, variables: own }: OwnVariables = { text: "", variables: {} },
): Promise<Layer | { complaint: Complaint; blank: boolean } | undefined> {
  let content: string;
  try {
    // The user's own settings may be symlinks (dotfiles).
    const bytes = readSmallBytes(vm ? file : (realPath(file) ?? file));
    if (bytes === undefined) return undefined;
    content = decodeStrictly(bytes);
  } catch (error) {
    const reason = error instanceof TypeError ? "it is not UTF-8 text" : briefOf(error);
    const denied = hasErrno(error, "EACCES", "EPERM");
    throw new VmError(denied ? "cannotCreate" : "config", `cannot read ${file}: ${reason}`, {
      cause: error,
      hint: denied ? "act as its owner, or make it readable: chown, chmod u+r" : undefined,
    });
  }
  if (vm) refuseNewer(content, file);
  const blank = isBlank(content);
  const known = builtinVariables(sources);
  const result = readAssignments(content, lookupIn(before, { ...own, ...known }, sources.env));
  if (result.kind === "values") return { assignments: result.assignments, blank };
  if (result.kind === "error") return { complaint: { file, ...result }, blank };
  if (vm)
    return {
      blank,
      complaint: {
        file,
        line: result.line,
        message: `${result.reason}: this file holds plain NAME=value lines only`,
        hint: `move conditions to ~/.config/${sources.prog}.conf, arguments for qemu to ${sources.prog}.defaults`,
      },
    };
  const needed = `this needs bash (${result.reason})`;
  if (!sources.mayUseBash)
    return { blank, complaint: { file, line: result.line, message: `${needed}, which is not used here` } };
  const reason = distrust(file);
  if (reason)
    return {
      blank,
      complaint: {
        file,
        line: result.line,
        message: `${needed}, but ${reason}`,
        hint: "write plain NAME=value lines, or make the file and its directory yours alone (chmod go-w)",
      },
    };
  const { evaluateWithBash } = await import("./bash.ts");
  const evaluated = await evaluateWithBash(file, { ...known, ...before }, SETTING_NAMES, userShell);
  if ("complaint" in evaluated)
    return {
      blank,
      complaint: {
        file,
        line: result.line,
        message: evaluated.complaint,
      },
    };
  const assignments = SETTING_NAMES.flatMap((name) => {
    const value = evaluated.variables[name];
    const same = value === undefined || JSON.stringify(value) === JSON.stringify(before[name]);
    return same ? [] : [{ name, value, line: findAssignedLine(content, name) }];
  });
  return { assignments, blank, userShell: evaluated.userShell };
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

/** The last line that assigns NAME, for files evaluated by bash. */
function findAssignedLine(content: string, name: string): number {
  const lines = content.split("\n");
  const at = lines.findLastIndex((line) => new RegExp(`\\b${name}\\+?=`).test(line));
  return Math.max(at, 0) + 1;
}

/** Errors in the values that a file sets. */
export function checkLayer(
  layer: RawSettings,
  file: string,
  origins: Record<SettingName, Origin>,
): Complaint[] {
  const complaints: Complaint[] = [];
  for (const [name, raw] of Object.entries(layer) as [SettingName, SettingValue][]) {
    const parsed = parseSetting(name, raw);
    const origin = origins[name];
    if ("value" in parsed || origin.kind !== "file") continue;
    const given = SECRETS.has(name) ? "…" : (parsed.given ?? [raw].flat().join(" "));
    complaints.push({
      file,
      line: origin.line,
      message: `${name}='${given}' is not allowed`,
      hint: `allowed: ${parsed.allowed}`,
    });
  }
  return complaints.toSorted((a, b) => a.line - b.line);
}
