/**
 * The few requests of man(7) that the manual needs. groff_char(7) on escapes: a plain `-` is a hyphen, which
 * cannot be pasted into a shell; so what is to be typed has `\-`.
 */

/** Shorter than the 80 bytes that `mandoc -Tlint` allows: a line may still get a guard before it. */
const WIDTH = 76;

const NAMED: Readonly<Record<string, string>> = {
  "\\": String.raw`\e`,
  "-": String.raw`\-`,
  "'": String.raw`\(aq`,
  "`": String.raw`\(ga`,
  "^": String.raw`\(ha`,
  "~": String.raw`\(ti`,
};

/** `…` has no place in ASCII terminals, and groff says so. */
const unicode = (character: string): string =>
  character === "…"
    ? "..."
    : String.raw`\[u${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}]`;

/** Text that stays as it is, letter by letter. */
export const literal = (text: string): string =>
  text.replaceAll(/[\\'`^~-]/g, (character) => NAMED[character]!).replaceAll(/[^\n\x20-\x7E]/gu, unicode);

/** A sentence: hyphens are hyphens, but where an option begins; `…` in backquotes is literal, and bold. */
export function prose(text: string): string {
  return text
    .split("`")
    .map((part, index) => {
      if (index % 2 === 1) return bold(part);
      return part
        .replaceAll("\\", NAMED["\\"]!)
        .replaceAll(/(?<![A-Za-z\d])-|-(?![A-Za-z\d])/g, NAMED["-"]!)
        .replaceAll(/[\^~]/g, (character) => NAMED[character]!)
        .replaceAll(/[^\n\x20-\x7E]/gu, unicode);
    })
    .join("");
}

export const bold = (text: string): string => String.raw`\fB${literal(text)}\fR`;
export const italic = (text: string): string => String.raw`\fI${literal(text)}\fR`;

/** Lines of ready text. One that begins like a request is guarded. */
export function fill(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const last = lines.at(-1);
    // Else a sentence would end in one space here and in two there.
    const ended = /[\w)]\.$/.test(last ?? "");
    if (last !== undefined && !ended && last.length + 1 + word.length <= WIDTH)
      lines.splice(-1, 1, `${last} ${word}`);
    else lines.push(word);
  }
  return lines.map(guard);
}

const guard = (line: string): string => (/^[.']/.test(line) ? String.raw`\&${line}` : line);

const quoteRoff = (text: string): string => `"${text.replaceAll('"', String.raw`\(dq`)}"`;

export const title = (name: string, date: string, source: string): string[] => [
  `.TH ${[name.toUpperCase(), "1", date, source, "User Commands"].map(quoteRoff).join(" ")}`,
  // Names of files and options are not to be hyphenated, and no line is stretched.
  ".nh",
  ".ad l",
];
export const section = (name: string): string[] => [`.SH ${quoteRoff(name)}`];
export const subsection = (name: string): string[] => [`.SS ${quoteRoff(name)}`];
/** @param text ready */
export const paragraph = (text: string): string[] => [".PP", ...fill(text)];
/** A tagged paragraph: a name and its meaning. @param tag ready, one line @param text ready */
export const item = (tag: string, text: string): string[] => [".TP", guard(tag), ...fill(text)];
/** Lines that are to be typed, or are shown as they stand. */
export const example = (lines: readonly string[]): string[] => [
  ".PP",
  ".RS 4",
  ".nf",
  ...lines.map((line) => guard(literal(line))),
  ".fi",
  ".RE",
];

/** The finished page. A paragraph that a heading begins already is not begun again. */
export const finish = (lines: readonly string[]): string =>
  `${lines.filter((line, index) => line !== ".PP" || !/^\.S[HS]/.test(lines[index - 1] ?? "")).join("\n")}\n`;
