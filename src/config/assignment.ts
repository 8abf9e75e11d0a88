import type { SettingValue } from "./literal.ts";

/** Control characters that would move a terminal's cursor, or that the literal reader refuses. */
const UNSHOWABLE = /[^\P{Cc}\n\t]/u;

const ESCAPES: Record<string, string> = { "\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t" };

/** One word of bash that stands for exactly `text`; read by the literal reader, too, unless it holds control characters. */
export function bashWord(text: string): string {
  if (/^[A-Za-z0-9_@%+=:,./-]+$/.test(text)) return text;
  if (!UNSHOWABLE.test(text)) return `'${text.replaceAll("'", `'\\''`)}'`;
  // bash(1), QUOTING.
  const inside = text.replaceAll(/[\\'\p{Cc}]/gu, (character) => {
    const code = character.codePointAt(0)!;
    const digits = code.toString(16);
    return (
      ESCAPES[character] ?? (code < 0x80 ? `\\x${digits.padStart(2, "0")}` : `\\u${digits.padStart(4, "0")}`)
    );
  });
  return `$'${inside}'`;
}

/** `NAME=value` or `NAME=( … )`, as a line of a settings file. */
export const bashAssignment = (name: string, value: SettingValue): string =>
  `${name}=${typeof value === "string" ? value && bashWord(value) : `(${value.map((item) => ` ${(item && bashWord(item)) || "''"}`).join("")}${value.length > 0 ? " " : ""})`}`;
