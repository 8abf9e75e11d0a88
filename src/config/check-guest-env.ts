import type { SettingValue } from "./shell-expand.ts";
import { readAssignments } from "./literal.ts";
import type { Complaint } from "./complaint.ts";
import { isSettingName, parseSetting } from "./schema.ts";

/** Only blanks and NULs: a settings file after a power cut, or truncated without a sync. */
export const isBlank = (text: string): boolean => /^[\s\0]*$/.test(text);

/** Result of checking a guest.env without loading it. */
export interface CheckedGuestEnv {
  /** `unreadable`: a line is no assignment. */
  state: "readable" | "unreadable" | "empty";
  /** IMAGES, if it can be read. */
  images: SettingValue;
  /** All errors in it. */
  complaints: Complaint[];
}

/**
 * Pure: checks the text of a guest.env.
 * @param lookup values of variables that it refers to
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
