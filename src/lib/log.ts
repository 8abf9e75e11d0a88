import type { ConsolaInstance, LogObject } from "consola/core";
import { writeError } from "./standard-streams.ts";
import { plainLines } from "./text.ts";

/** Colour sequences by role; empty strings where colours are off. */
export interface Theme {
  normal: string;
  bold: string;
  ok: string;
  error: string;
  warning: string;
  /** The command in an announcement: CLR_LC1. */
  command: string;
  /** Arguments in an announcement, and names of snapshots: CLR_LC2. */
  name: string;
}

export const PLAIN: Theme = { normal: "", bold: "", ok: "", error: "", warning: "", command: "", name: "" };

let theme = PLAIN;
let prefix = "vm";
let beforeLine = (): void => {};

/** Sets the colours and the name that stands before each message. */
export function setupLog(name: string, colours: Theme): void {
  prefix = name;
  theme = colours;
}

/** Called before each line: a progress bar clears itself there. */
export function onLogLine(clear: () => void): void {
  beforeLine = clear;
}

/** Characters for private use mark what is coloured: control characters of a text do not get through. */
const [COMMAND, NAME, END] = ["\uE000", "\uE001", "\uE002"];

/** The name of a snapshot in a line of the log, highlighted where there are colours. */
export const snapshotName = (name: string): string => `${NAME}${name}${END}`;

/** @param around the colour of the line, which goes on behind a name */
const colourize = (text: string, around = ""): string =>
  text
    .replaceAll(COMMAND, theme.command)
    .replaceAll(NAME, theme.name)
    .replaceAll(END, theme.normal + around);

function render({ type, args }: LogObject): string {
  // Most of them hold names and messages from outside: a line end in one must not begin a line of the log.
  const text = plainLines(args.join(" ")).replaceAll(/(?<=.)\n(?=\S)/gs, "\n  ");
  const { normal, bold, ok, error, warning } = theme;
  switch (type) {
    case "start":
      return `${bold}*** ${colourize(text, bold)}...${normal}\n`;
    case "error":
      return `${error}${prefix}: ${text}${normal}\n`;
    case "warn":
      return `${prefix}: ${warning}warning:${normal} ${text}\n`;
    case "success":
      return `${ok}${colourize(text, ok)}${normal}\n`;
    default:
      return `${colourize(text)}\n`;
  }
}

let instance: ConsolaInstance | undefined;

/** consola is loaded with the first message: most commands say nothing. */
function consola(): ConsolaInstance {
  const { createConsola } = require("consola/core") as typeof import("consola/core");
  return (instance ??= createConsola({
    level: 3,
    // consola would spread info over stdout; results alone belong there.
    reporters: [
      {
        log: (line) => {
          beforeLine();
          void writeError(render(line));
        },
      },
    ],
    throttle: 0,
  }));
}

let quiet = false;

/** From now on only warnings and errors are told, or everything again. */
export function setQuiet(value: boolean): void {
  quiet = value;
}

export const isQuiet = (): boolean => quiet;

/** Everything a person is told while the program works; all of it goes to stderr. */
export const log = {
  info: (text: string): void => void (quiet || consola().info(text)),
  success: (text: string): void => void (quiet || consola().success(text)),
  warn: (text: string): void => consola().warn(text),
  error: (text: string): void => consola().error(text),
  /** [compat] `*** Executing command: NAME('WORD', …)...` */
  announce(command: string, words: readonly string[]): void {
    const shown = words.map((word) => `${NAME}'${word}'${END}`).join(", ");
    if (!quiet) consola().start(`Executing command: ${COMMAND}${command}${END}(${shown})`);
  },
  /** Told in any case. */
  always: (text: string): void => consola().info(text),
};

const said = new Set<string>();

/** A warning that is given once in a run of the program, however many commands meet its cause. */
export function warnOnce(text: string): void {
  if (said.has(text)) return;
  said.add(text);
  log.warn(text);
}
