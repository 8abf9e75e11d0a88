/** The word at the cursor, as it stands in the line and as the shell would read it. */
export interface Token {
  raw: string;
  text: string;
  /** For each character of `text`: where it ends in `raw`. */
  ends: number[];
  /** The quote that is open at the cursor. */
  quote: "" | "'" | '"';
}

/** What a backslash takes the meaning from, in the shells' manuals: "Quoting". */
const ESCAPED = { "": /[^]/, '"': /["\\$`]/, "'": /(?!)/ } as const;
/** In fish also within single quotes. */
const ESCAPED_BY_FISH = { ...ESCAPED, "'": /['\\]/ } as const;

/**
 * Splits a command line that ends at the cursor into words, as bash, zsh and fish do with quotes and backslashes.
 * Nothing is expanded.
 */
export function splitLine(line: string, fish = false): { words: string[]; token: Token } {
  const words: string[] = [];
  const escaped = fish ? ESCAPED_BY_FISH : ESCAPED;
  let start = 0;
  let [text, ends, quote]: [string, number[], Token["quote"]] = ["", [], ""];
  for (let at = 0; at < line.length; at++) {
    let character = line[at]!;
    if (quote === "" && /\s/.test(character)) {
      if (at > start) words.push(text);
      start = at + 1;
      [text, ends] = ["", []];
      continue;
    }
    if (character === quote) {
      quote = "";
      continue;
    }
    if (quote === "" && (character === "'" || character === '"')) {
      quote = character;
      continue;
    }
    if (character === "\\" && escaped[quote].test(line[at + 1] ?? "")) character = line[++at]!;
    else if (character === "\\" && at === line.length - 1) continue;
    text += character;
    ends.push(at + 1 - start);
  }
  return { words, token: { raw: line.slice(start), text, ends, quote } };
}
