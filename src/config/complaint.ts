import { VmError } from "../lib/errors.ts";

/** An error in a settings file. */
export interface Complaint {
  file: string;
  line: number;
  message: string;
  hint?: string | undefined;
}

/** The error for a bad value on the command line. @param line the likely intended line, to paste */
export function badOption(option: string, given: string, allowed: string, line?: string): VmError {
  const meant = line === undefined ? "" : `did you mean: ${line}\n`;
  return new VmError("usage", `${option}: '${given}' is not allowed`, {
    hint: `${meant}allowed: ${allowed}`,
  });
}

/** One error that lists all errors in the files. */
export function settingsError(complaints: Complaint[]): VmError {
  const lines = complaints.map(
    ({ file, line, message, hint }) => `${file}:${line}: ${message}${hint ? `\n    ${hint}` : ""}`,
  );
  const brief = `the settings have ${lines.length === 1 ? "an error" : `${lines.length} errors`}`;
  return new VmError("config", `${brief}:\n  ${lines.join("\n  ")}`, {
    reason: "settings",
    brief,
    hint: "correct the file and run the command again",
  });
}
