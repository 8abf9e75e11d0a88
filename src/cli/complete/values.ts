import { isSettingName, SCHEMA, SETTING_NAMES, type SettingName } from "../../config/schema.ts";
import type { ParserFacts, ParserKind } from "../../config/values.ts";
import { KEYS } from "../../machine/keys.ts";
import { NETWORK_WORDS } from "../../machine/network.ts";
import { MACROS } from "../../machine/macros.ts";
import { DISK_BUSES, IMAGE_FORMATS } from "../../machine/types.ts";
import type { ValueKind } from "../../commands/define.ts";
import type { CommandOption, Positional } from "../command.ts";
import { LAST } from "../../store/layout.ts";
import { COMMANDS } from "../registry.ts";

/** A possible completion of the word. */
export interface Candidate {
  text: string;
  /** Short description. */
  help?: string | (() => string) | undefined;
  /** A path, which shells display and quote themselves. */
  path?: true;
}

/** A source of candidates. */
export type CandidateSource =
  | { kind: "words"; words: Candidate[] }
  /** Labels of VMs, behind `at`. */
  | { kind: "labels"; at: string }
  | { kind: "snapshots" | "disks" | "jobs" | "profiles" | "directories" }
  /** Includes directories, which may contain such files. */
  | { kind: "files"; suffix?: string };

/** Candidates after the first `skip` characters of a value. */
export interface Values {
  skip: number;
  sources: CandidateSource[];
}

export const wordsSource = (words: readonly string[], help?: string): CandidateSource => ({
  kind: "words",
  words: words.map((text) => ({ text, help })),
});

const FILES: CandidateSource = { kind: "files" };
const DIRECTORIES: CandidateSource = { kind: "directories" };
const ISO: CandidateSource = { kind: "files", suffix: ".iso" };

const KINDS: Readonly<
  Record<Exclude<ValueKind, "assignment" | "clone" | "disk" | "disk image">, () => CandidateSource>
> = {
  command: () => wordsSource([...COMMANDS.keys()]),
  directory: () => DIRECTORIES,
  file: () => FILES,
  "ISO image": () => ISO,
  job: () => ({ kind: "jobs" }),
  key: () => wordsSource(KEYS),
  setting: () => wordsSource(SETTING_NAMES),
  snapshot: () => ({ kind: "snapshots" }),
};

/** Values of a command's argument, or of its own option. */
export function argumentValues({ choices = [], kind }: Positional | CommandOption, value: string): Values {
  // The same syntax as the global option.
  if (kind === "disk image") return settingValues("IMAGES", value);
  if (kind === "clone")
    return {
      skip: 0,
      sources: [wordsSource([LAST], "the last snapshot"), { kind: "snapshots" }, DIRECTORIES],
    };
  if (kind === "assignment") return assignmentValues(value);
  if (kind === "disk") {
    const { skip, sources } = settingValues("IMAGES", value);
    return { skip, sources: skip === 0 ? [...sources, { kind: "disks" }] : sources };
  }
  return { skip: 0, sources: [kind ? KINDS[kind]() : wordsSource(choices)] };
}

/** `NAME=`, and the values of that setting. */
function assignmentValues(word: string): Values {
  const at = word.indexOf("=");
  const name = word.slice(0, Math.max(0, at));
  if (!isSettingName(name)) return { skip: 0, sources: [wordsSource(SETTING_NAMES.map((one) => `${one}=`))] };
  const values = settingValues(name, word.slice(at + 1));
  return { ...values, skip: at + 1 + values.skip };
}

const BUSES = wordsSource(DISK_BUSES.map((bus) => `${bus}=`));
const FORMATS = wordsSource(IMAGE_FORMATS.map((format) => `${format}=`));
/** Not expanded, as WORKDIR changes. */
const AT_MACROS: CandidateSource = { kind: "words", words: MACROS.map(([text, help]) => ({ text, help })) };

/** For settings whose values have parts, or are names on this host. */
const STRUCTURED: Readonly<Record<Exclude<ParserKind, "text" | "flag">, (value: string) => Values>> = {
  disks: (value) => ({ skip: value.lastIndexOf(",") + 1, sources: [BUSES] }),
  images(value) {
    const [bus = "", format = ""] = value.split("=");
    const known = (IMAGE_FORMATS as readonly string[]).includes(format);
    if (!value.includes("=")) return { skip: 0, sources: [BUSES] };
    if (known && value.length > bus.length + format.length + 1)
      return { skip: bus.length + format.length + 2, sources: [FILES, AT_MACROS] };
    return { skip: bus.length + 1, sources: [FORMATS, FILES, AT_MACROS] };
  },
  shares(value) {
    const head = /^[^:]*:(rw:|ro:)?/.exec(value);
    if (!head) return { skip: 0, sources: [] };
    return {
      skip: head[0].length,
      sources: [
        ...(head[1] ? [] : [wordsSource(["rw:"], "the guest may write there")]),
        DIRECTORIES,
        AT_MACROS,
      ],
    };
  },
  forwards: () => ({
    skip: 0,
    sources: [
      wordsSource(["tcp::", "udp::"], "PORT-:PORT, on all addresses of this host"),
      wordsSource(["tcp:127.0.0.1:", "udp:127.0.0.1:"], "PORT-:PORT, on this host only"),
    ],
  }),
  networks(value) {
    const comma = value.lastIndexOf(",");
    if (comma < 0) return { skip: 0, sources: [wordsSource(NETWORK_WORDS)] };
    const options = ["mac=", "link=down", ...(value.startsWith("net=") ? ["outside=off"] : [])];
    return { skip: comma + 1, sources: [wordsSource(options)] };
  },
  profile: () => ({
    skip: 0,
    sources: [{ kind: "profiles" }, wordsSource(["auto"], "build one if none exists")],
  }),
};

/** Values of a setting on the command line. */
export function settingValues(name: SettingName, value: string): Values {
  const { kind, choices = [] }: ParserFacts = SCHEMA[name].parse;
  if (kind !== "text" && kind !== "flag") return STRUCTURED[kind](value);
  return { skip: 0, sources: [wordsSource(choices)] };
}
