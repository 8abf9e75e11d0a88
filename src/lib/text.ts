/** Text that comes from a guest, an image, a repository or a directory, made fit for a terminal. */

/**
 * Control characters (C0, C1, DEL), and characters that change the order in which text is shown (UAX #9) or have no
 * width: a terminal takes them for more than text, or shows nothing.
 */
const CONTROL = /[\p{Cc}\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/gu;

/** One line: each control character, line ends and tabs among them, becomes `?`. */
export const plain = (text: string): string => text.replaceAll(CONTROL, "?");

/** Stands for bytes that are not UTF-8: a name with it does not name the file. */
export const REPLACEMENT = "\ufffd";

/** Of a line of a log, so much is quoted. */
const QUOTED = 300;

/** One line of a log in a message: plain, and cut where it is very long. */
export function quoteLine(line: string): string {
  const text = plain(line.slice(0, QUOTED));
  return line.length > QUOTED ? `${text}…` : text;
}

/** A result for people: line ends and tabs stay, everything else as in `plain`. */
export const printable = (text: string): string =>
  text.replaceAll(CONTROL, (character) => (character === "\n" || character === "\t" ? character : "?"));

/** Several lines: line ends stay, everything else as in `plain`. */
export const plainLines = (text: string): string => text.split("\n").map(plain).join("\n");

/** Colours (SGR, ECMA-48) stay, and so do line ends, tabs and carriage returns; other control characters do not. */
const STEERING =
  // oxlint-disable-next-line no-control-regex
  /\x1b\[[0-9;]*m|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** What a program printed, for a terminal: with its colours, and nothing else that steers one. */
export const tameText = (text: string): string =>
  text.replaceAll(STEERING, (match) => (match.length > 1 ? match : match === "\x1b" ? "^[" : "?"));

/**
 * Is this a name within a directory, and never a path? Data files name other files only so.
 * Not empty, no `.` or `..`, no `/`, no control characters, at most 255 bytes.
 */
export const isPlainName = (name: unknown): name is string =>
  typeof name === "string" &&
  name !== "" &&
  name !== "." &&
  name !== ".." &&
  !name.includes("/") &&
  plain(name) === name &&
  Buffer.byteLength(name) <= 255;

/** The longest name of a snapshot, a job or a profile: a file's has 255 (NAME_MAX), and a prefix and suffix are added. */
export const MAX_OWN_NAME_BYTES = 200;

/** Can a snapshot, a job or a profile have this name? It is no path, no hidden file and no option. */
export const isOwnName = (name: string): boolean =>
  /^[^/.\-\p{Cc}][^/\p{Cc}]*$/u.test(name) && Buffer.byteLength(name) <= MAX_OWN_NAME_BYTES;

/** Does a name fit a pattern, in which `*` stands for any text, and `?` for a character? */
export const matchesPattern = (name: string, pattern: string): boolean =>
  new RegExp(
    `^${pattern
      .replaceAll(/[\\^$.|+()[\]{}]/g, String.raw`\$&`)
      .replaceAll(/\*+/g, ".*")
      .replaceAll("?", ".")}$`,
    "su",
  ).test(name);

/** Can a VM have this label? It can be typed behind an `@`, and begins no option. */
export const isLabel = (word: string): boolean => /^[a-z][a-z0-9._-]{0,62}$/.test(word);

/** `1 snapshot`, `2 snapshots` */
export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** `a`, `a or b`, `a, b or c` */
export const either = (words: readonly string[]): string =>
  [words.slice(0, -1).join(", "), ...words.slice(-1)].filter(Boolean).join(" or ");
