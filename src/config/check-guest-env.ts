import { readAssignments, type SettingValue } from "./literal.ts";
import type { Complaint } from "./complaint.ts";
import { isSettingName, parseSetting } from "./schema.ts";

/** Nothing but blanks and NULs: what a power cut, or `>` without a sync, leaves of a settings file. */
export const isBlank = (text: string): boolean => /^[\s\0]*$/.test(text);

/** A guest.env that is looked at without being loaded. */
export interface CheckedGuestEnv {
  /** `unreadable`: a line is no assignment. */
  state: "readable" | "unreadable" | "empty";
  /** IMAGES, as far as that is known. */
  images: SettingValue;
  /** Everything wrong with it. */
  complaints: Complaint[];
}

/**
 * Pure: looks at the text of a guest.env.
 * @param lookup what variables mean that it refers to
 */
export function checkGuestEnv(text: string, file: string, lookup: (name: string) => string): CheckedGuestEnv {
  const failed = (state: "unreadable" | "empty", line: number, message: string): CheckedGuestEnv => ({
    state,
    images: [],
    complaints: [{ file, line, message }],
  });
  if (isBlank(text)) return failed("empty", 1, "it is empty");
  const read = readAssignments(text, lookup);
  if (read.kind === "error") return failed("unreadable", read.line, read.message);
  if (read.kind === "needs-bash")
    return failed("unreadable", read.line, `${read.reason}: this file holds plain NAME=value lines only`);
  const complaints = read.assignments.flatMap(({ name, value, line }) => {
    if (!isSettingName(name)) return [];
    const parsed = parseSetting(name, value);
    if ("value" in parsed) return [];
    return [{ file, line, message: `${name} is not allowed to be this; allowed: ${parsed.allowed}` }];
  });
  const images = read.assignments.findLast(({ name }) => name === "IMAGES")?.value ?? [];
  return { state: "readable", images, complaints };
}
