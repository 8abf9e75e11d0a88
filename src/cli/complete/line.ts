/** The word at the cursor: as typed, and without quotes and backslashes. */
export interface Token {
  raw: string;
  text: string;
  /** End of each character of `text` in `raw`. */
  ends: number[];
  /** The open quote at the cursor. */
  quote: "" | "'" | '"';
}

/** Characters that a backslash escapes (the shells' manuals, "Quoting"). */
const ESCAPED = { "": /[^]/, '"': /["\\$`]/, "'": /(?!)/ } as const;
/** fish has escapes in single quotes, too. */
const ESCAPED_BY_FISH = { ...ESCAPED, "'": /['\\]/ } as const;

/** Splits a command line up to the cursor into words, with the quoting of bash, zsh and fish, without expansions. */
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
