import type { ConsolaInstance, LogObject } from "consola/core";
import { writeError } from "./standard-streams.ts";
import { plainLines } from "./text.ts";

/** Colour sequences by role; empty without colours. */
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

/** Sets the colours, and the name that precedes each message. */
export function setupLog(name: string, colours: Theme): void {
  prefix = name;
  theme = colours;
}

/** Sets a function to call before each line, which clears the progress bar. */
export function onLogLine(clear: () => void): void {
  beforeLine = clear;
}

/** Private-use characters mark coloured parts, as control characters of a text are removed. */
const [COMMAND, NAME, END] = ["\uE000", "\uE001", "\uE002"];

/** A snapshot's name in a message, highlighted. */
export const snapshotName = (name: string): string => `${NAME}${name}${END}`;

/** @param around colour of the line, restored after a name */
const colourize = (text: string, around = ""): string =>
  text
    .replaceAll(COMMAND, theme.command)
    .replaceAll(NAME, theme.name)
    .replaceAll(END, theme.normal + around);

function render({ type, args }: LogObject): string {
  // Untrusted names and messages: a line break in one must not start a message of its own.
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

/** Loads consola with the first message, as most commands print none. */
function consola(): ConsolaInstance {
  const { createConsola } = require("consola/core") as typeof import("consola/core");
  return (instance ??= createConsola({
    level: 3,
    // consola would print info on stdout, which is for results.
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

/** Prints only warnings and errors, or everything. */
export function setQuiet(value: boolean): void {
  quiet = value;
}

export const isQuiet = (): boolean => quiet;

/** Messages of the program, on stderr. */
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
  /** Printed even if quiet. */
  always: (text: string): void => consola().info(text),
};

const warned = new Set<string>();

/** Prints a warning once per process, as several commands of a batch may cause it. */
export function warnOnce(text: string): void {
  if (warned.has(text)) return;
  warned.add(text);
  log.warn(text);
}
