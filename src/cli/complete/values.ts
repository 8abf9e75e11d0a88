import { SCHEMA, SETTING_NAMES, type SettingName } from "../../config/schema.ts";
import type { ParserFacts, ParserKind } from "../../config/values.ts";
import { MACROS } from "../../machine/macros.ts";
import { DISK_BUSES, IMAGE_FORMATS } from "../../machine/types.ts";
import type { ValueKind } from "../../commands/define.ts";
import type { CommandOption, Positional } from "../command.ts";
import { COMMANDS } from "../registry.ts";

/** One thing that the word could be. */
export interface Candidate {
  text: string;
  /** A few words about it. */
  help?: string | undefined;
  /** A name in the file system, which shells show and quote in their own way. */
  path?: true;
}

/** Where candidates come from. */
export type CandidateSource =
  | { kind: "words"; words: Candidate[] }
  | { kind: "snapshots" | "jobs" | "profiles" | "directories" }
  /** Directories count as well: a file may be below. */
  | { kind: "files"; suffix?: string };

/** What may stand behind the first `skip` characters of a value. */
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

const KINDS: Readonly<Record<Exclude<ValueKind, "disk image">, () => CandidateSource>> = {
  command: () => wordsSource([...COMMANDS.keys()]),
  directory: () => DIRECTORIES,
  file: () => FILES,
  "ISO image": () => ISO,
  job: () => ({ kind: "jobs" }),
  setting: () => wordsSource(SETTING_NAMES),
  snapshot: () => ({ kind: "snapshots" }),
};

/** What a command's argument, or the value of an option of its own, can be. */
export function argumentValues({ choices = [], kind }: Positional | CommandOption, value: string): Values {
  // Of the same form as the global option.
  if (kind === "disk image") return settingValues("IMAGES", value);
  return { skip: 0, sources: [kind ? KINDS[kind]() : wordsSource(choices)] };
}

const BUSES = wordsSource(DISK_BUSES.map((bus) => `${bus}=`));
const FORMATS = wordsSource(IMAGE_FORMATS.map((format) => `${format}=`));
/** WORKDIR changes, so these lead nowhere that could be looked up. */
const AT_MACROS: CandidateSource = { kind: "words", words: MACROS.map(([text, help]) => ({ text, help })) };

/** Of settings whose values have parts, or are found on this host. */
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
      wordsSource(["tcp:127.0.0.1:", "udp:127.0.0.1:"], "PORT-:PORT, for this host alone"),
    ],
  }),
  profile: () => ({
    skip: 0,
    sources: [{ kind: "profiles" }, wordsSource(["auto"], "made if there is none")],
  }),
};

/** What a setting's value on the command line can be. */
export function settingValues(name: SettingName, value: string): Values {
  const { kind, choices = [] }: ParserFacts = SCHEMA[name].parse;
  if (kind !== "text" && kind !== "flag") return STRUCTURED[kind](value);
  return { skip: 0, sources: [wordsSource(choices)] };
}
