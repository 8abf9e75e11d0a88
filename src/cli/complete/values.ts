import { SCHEMA, SETTING_NAMES, type SettingName } from "../../config/schema.ts";
import type { ParserFacts, ParserKind } from "../../config/values.ts";
import { MACROS } from "../../machine/macros.ts";
import { DISK_BUSES, IMAGE_FORMATS } from "../../machine/types.ts";
import { COMMANDS, type Command, type CommandOption, type Positional } from "../registry.ts";

/** One thing that the word could be. */
export interface Candidate {
  text: string;
  /** A few words about it. */
  help?: string | undefined;
  /** A name in the file system, which shells show and quote in their own way. */
  path?: true;
}

/** Where candidates come from. */
export type Source =
  | { kind: "words"; words: Candidate[] }
  | { kind: "snapshots" | "jobs" | "profiles" | "directories" }
  /** Directories count as well: a file may be below. */
  | { kind: "files"; suffix?: string };

/** What may stand behind the first `skip` characters of a value. */
export interface Values {
  skip: number;
  sources: Source[];
}

export const wordsSource = (words: readonly string[], help?: string): Source => ({
  kind: "words",
  words: words.map((text) => ({ text, help })),
});

const FILES: Source = { kind: "files" };
const DIRECTORIES: Source = { kind: "directories" };
const ISO: Source = { kind: "files", suffix: ".iso" };

/** What an argument of a command is: by the command's name and its own, or by its own alone. */
const BY_NAME: Readonly<Record<string, Source>> = {
  // The name of a new one.
  "backup snapshot": wordsSource([]),
  "config name": wordsSource(SETTING_NAMES),
  "timer command": wordsSource([...COMMANDS.keys()]),
  "run wait": wordsSource(["ssh", "agent"]),
  "snapshots name": { kind: "snapshots" },
  sums: FILES,
  snapshot: { kind: "snapshots" },
  jobname: { kind: "jobs" },
  isoimage: ISO,
  iso: ISO,
  rescue: { kind: "profiles" },
  source: FILES,
  target: FILES,
  paths: FILES,
};

/** By the name of its value in the help. */
const BY_HINT: Readonly<Record<string, Source>> = {
  FILE: FILES,
  PATH: FILES,
  IMAGE: FILES,
  DIR: DIRECTORIES,
};

/** `none, gzip or xz`, if that is all that the help begins with: behind `build: `, before `; default …`. */
const CHOICES = /^(?:[a-z]+: )?([a-z\d-]+(?:, [a-z\d-]+)* or [a-z\d-]+)(?:;|$)/;

/** The words that a help text offers: `none, gzip or xz; default: none` → none, gzip, xz. */
export const choicesIn = (help: string): string[] => CHOICES.exec(help)?.[1]!.split(/, | or /) ?? [];

const own = <T>(table: Readonly<Record<string, T>>, key: string): T | undefined =>
  Object.hasOwn(table, key) ? table[key] : undefined;

/** What a command's argument, or the value of an option of its own, can be. */
export function argumentSources(command: Command, argument: Positional | CommandOption): Source[] {
  const [name, hint] = "long" in argument ? [argument.long, argument.value ?? ""] : [argument.name, ""];
  const named = own(BY_NAME, `${command.name} ${name}`) ?? own(BY_NAME, name);
  const source = named ?? own(BY_HINT, hint) ?? own(BY_HINT, name.toUpperCase());
  return source ? [source] : [wordsSource(choicesIn(argument.help))];
}

const BUSES = wordsSource(DISK_BUSES.map((bus) => `${bus}=`));
const FORMATS = wordsSource(IMAGE_FORMATS.map((format) => `${format}=`));
/** WORKDIR changes, so these lead nowhere that could be looked up. */
const AT_MACROS: Source = { kind: "words", words: MACROS.map(([text, help]) => ({ text, help })) };

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
