import { PACKAGES, type Packages, type Thing } from "../../lib/packages.ts";
import { findProgram } from "../../process/exec.ts";

/** `limited`: there, but not all that it could be. */
export type CheckState = "ok" | "missing" | "limited";

/** One thing that the program needs or may use. */
export interface Check {
  /** Stays the same from version to version: for scripts. */
  name: string;
  state: CheckState;
  /** Without it the program does not do its work, with the settings in force. */
  needed: boolean;
  /** What it is for. */
  use: string;
  /** What was found, or why it cannot be used; one line. */
  detail: string;
  /** What holds it, where it is missing. */
  packages?: Packages;
}

export interface ProgramCheck {
  name: string;
  use: string;
  needed?: boolean;
  thing?: Thing;
  find?: (name: string) => string | undefined;
}

/** Is a program there? */
export function checkProgram({ name, use, needed = false, thing, find = findProgram }: ProgramCheck): Check {
  const path = find(name);
  const common = { name, needed, use };
  if (path !== undefined) return { ...common, state: "ok", detail: path };
  return { ...common, state: "missing", detail: "not found", ...(thing && { packages: PACKAGES[thing] }) };
}

/** A message of several lines as one. */
export const oneLine = (text: string): string =>
  text
    .trim()
    .replaceAll(/:?\s*\n\s*/g, ": ")
    .replaceAll(/\p{Cc}/gu, " ");
