import { PACKAGES, type Packages, type Thing } from "../../lib/packages.ts";
import { findProgram } from "../../process/exec.ts";

/** `limited`: present, but incomplete. */
export type CheckState = "ok" | "missing" | "limited";

/** A required or optional program or feature. */
export interface Check {
  /** A stable name, for scripts. */
  name: string;
  state: CheckState;
  /** Required with the settings in force. */
  needed: boolean;
  /** Its purpose. */
  use: string;
  /** What was found, or why it cannot be used, in one line. */
  detail: string;
  /** Packages that contain it, if it is missing. */
  packages?: Packages;
}

export interface ProgramCheck {
  name: string;
  use: string;
  needed?: boolean;
  thing?: Thing;
  find?: (name: string) => string | undefined;
}

/** Checks a program. */
export function checkProgram({ name, use, needed = false, thing, find = findProgram }: ProgramCheck): Check {
  const path = find(name);
  const common = { name, needed, use };
  if (path !== undefined) return { ...common, state: "ok", detail: path };
  return { ...common, state: "missing", detail: "not found", ...(thing && { packages: PACKAGES[thing] }) };
}

/** Joins the lines of a message. */
export const oneLine = (text: string): string =>
  text
    .trim()
    .replaceAll(/:?\s*\n\s*/g, ": ")
    .replaceAll(/\p{Cc}/gu, " ");
