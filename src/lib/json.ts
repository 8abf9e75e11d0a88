/** JSON output. */

/** Characters that JSON leaves as they are and a terminal obeys: DEL, C1, and those that reorder text (UAX #9). */
const UNESCAPED = /[\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g;

type Keys = string[] | ((key: string, value: unknown) => unknown);

const escapeText = (text: string): string =>
  text.replaceAll(UNESCAPED, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);

/**
 * A value as JSON with a line end, safe to show on a terminal; it reads back as the same.
 * @param keys as of JSON.stringify: the keys that are shown, or what stands for a value
 */
export function toJson(value: unknown, keys?: Keys): string {
  const text = Array.isArray(keys) ? JSON.stringify(value, keys, 2) : JSON.stringify(value, keys, 2);
  return `${escapeText(text)}\n`;
}

/** The same in one line. */
export const toJsonLine = (value: unknown): string => `${escapeText(JSON.stringify(value))}\n`;
