/**
 * Paths in a guest are bytes, and those that are not UTF-8 cannot be words of a command line. They can be given as `ls` shows
 * them; a byte that is not UTF-8 is then a lone surrogate in the string, as in Python (PEP 383).
 */
import { usageError } from "../lib/errors.ts";
import { decodeName } from "./listing.ts";

const LOW_SURROGATES = 0xdc00;
const BAD_BYTE = /[\udc80-\udcff]/u;
const ESCAPE = /\\(?:([0-3][0-7]{2})|([\\nt]))/y;
const LETTERS: Readonly<Record<string, number>> = { "\\": 0x5c, n: 0x0a, t: 0x09 };

/** Pure: the path that `escapeName` shows as this text. @throws 64 for another escape */
export function readShownPath(text: string): string {
  const pieces: Buffer[] = [];
  for (let at = 0; at < text.length;) {
    const escape = text.indexOf("\\", at);
    const end = escape < 0 ? text.length : escape;
    pieces.push(Buffer.from(text.slice(at, end)));
    if (escape < 0) break;
    ESCAPE.lastIndex = escape;
    const match = ESCAPE.exec(text);
    if (!match)
      throw usageError(
        `--escaped: '${text.slice(escape, escape + 4)}' is no escape of ls`,
        String.raw`give the name as ls shows it, in single quotes: 'a\nb'; escapes are \\, \n, \t and \ooo`,
      );
    const [whole, octal, letter] = match;
    pieces.push(Buffer.from([octal === undefined ? LETTERS[letter!]! : Number.parseInt(octal, 8)]));
    at = escape + whole.length;
  }
  const bytes = Buffer.concat(pieces);
  return decodeName(bytes) ?? decodeWithSurrogates(bytes);
}

/** Each byte above 0x7f of a path that is not UTF-8, as `escapeName` shows it. */
const decodeWithSurrogates = (bytes: Buffer): string =>
  Array.from(bytes, (byte) => String.fromCharCode(byte < 0x80 ? byte : LOW_SURROGATES + byte)).join("");

/** Pure: has it bytes that are not UTF-8? */
export const hasBadBytes = (path: string): boolean => BAD_BYTE.test(path);

/** Pure: the bytes of a path. */
export const encodePath = (path: string): Buffer =>
  hasBadBytes(path) ? Buffer.from(path, "latin1") : Buffer.from(path);
