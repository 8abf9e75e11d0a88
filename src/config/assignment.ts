import { shellQuote } from "../lib/shell.ts";
import type { SettingValue } from "./literal.ts";

/** Control characters that would steer a terminal, or that the literal reader refuses. */
const UNSHOWABLE = /[^\P{Cc}\n\t]/u;

/**
 * One word of bash that stands for exactly `text`. The literal reader gives it back, too, unless it holds
 * control characters: then bash is asked.
 */
export function bashWord(text: string): string {
  if (!UNSHOWABLE.test(text)) return shellQuote(text);
  // bash(1), QUOTING: `$'…'`. What it makes of \u depends on the locale, and of \x does not.
  const inside = text.replaceAll(/[\\']|\p{Cc}/gu, (character) =>
    [...new TextEncoder().encode(character)]
      .map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`)
      .join(""),
  );
  return `$'${inside}'`;
}

/** `NAME=value` or `NAME=( … )`, as a settings file has it. */
export function bashAssignment(name: string, value: SettingValue): string {
  if (typeof value === "string") return `${name}=${value === "" ? "" : bashWord(value)}`;
  return value.length === 0 ? `${name}=()` : `${name}=( ${value.map(bashWord).join(" ")} )`;
}
