import { shellQuote } from "../lib/shell.ts";
import type { SettingValue } from "./shell-expand.ts";

/** Control characters that affect a terminal, or that the literal reader refuses. */
const UNSHOWABLE = /[^\P{Cc}\n\t]/u;

/**
 * Quotes `text` as one word of bash. The literal reader returns it as well, unless it has control characters: those need
 * bash.
 */
export function bashWord(text: string): string {
  if (!UNSHOWABLE.test(text)) return shellQuote(text);
  // bash(1), QUOTING: `$'…'`. \u depends on the locale, \x does not.
  const inside = text.replaceAll(/[\\']|\p{Cc}/gu, (character) =>
    [...new TextEncoder().encode(character)]
      .map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`)
      .join(""),
  );
  return `$'${inside}'`;
}

/** A value in a message: words of bash, `empty` for none. */
export const valueText = (value: SettingValue): string =>
  [value].flat().filter(Boolean).map(shellQuote).join(" ") || "empty";

/** `NAME=value` or `NAME=( … )`, as in a settings file. */
export function bashAssignment(name: string, value: SettingValue): string {
  if (typeof value === "string") return `${name}=${value === "" ? "" : bashWord(value)}`;
  return value.length === 0 ? `${name}=()` : `${name}=( ${value.map(bashWord).join(" ")} )`;
}
