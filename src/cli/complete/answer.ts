import { COMPLETION_SHELLS, type CompletionShell } from "../../lib/shell.ts";
import { plain } from "../../lib/text.ts";
import type { ProcessFacts } from "../../vm/context.ts";
import { expandHome, listCandidates } from "./candidates.ts";
import { splitLine, type Token } from "./line.ts";
import { findPlace } from "./place.ts";
import type { Candidate } from "./values.ts";

/** A request of the completion scripts (`vm completion`). */
interface Question {
  token: Token;
  /** Characters of the token's text that the shell keeps, and that the candidates omit. */
  kept: number;
  skip: number;
  candidates: Candidate[];
}

/** The answer in the format of each shell. */
const ANSWERS: Readonly<Record<CompletionShell, (question: Question) => string[]>> = {
  /** First a line for `compopt`; then replacements of the word that readline sees. */
  bash({ token, kept, candidates }) {
    const texts = candidates.map(({ text }) => text.slice(kept));
    // readline quotes file names itself, and displays only their last components.
    if (candidates.length > 0 && candidates.every(({ path }) => path))
      return ["filenames", ...texts.map((text) => text.replace(/\/$/, ""))];
    const open = texts.length === 1 && OPEN_END.test(texts[0]!);
    return [open ? "nospace" : "", ...texts.map((text) => QUOTE[token.quote](text))];
  },
  /** First the length of the kept prefix; then lines for `_describe`: `s` (or `n`: no space after it), `text:help`. */
  zsh({ token, kept, skip, candidates }) {
    const before = kept > 0 ? token.ends[kept - 1]! : 0;
    const after = skip > kept ? token.ends[skip - 1]! : before;
    const lines = candidates.map(({ text, help }) => {
      const rest = text.slice(Math.max(skip, kept)).replaceAll(/[\\:]/g, String.raw`\$&`);
      return `${OPEN_END.test(text) ? "n" : "s"}${rest}${helpSuffix(":", help)}`;
    });
    return [String(Array.from(token.raw.slice(before, after)).length), ...lines];
  },
  /** Whole words: `text<TAB>help`. */
  fish: ({ candidates }) => candidates.map(({ text, help }) => text + helpSuffix("\t", help)),
};

/** Candidates with such an end are incomplete. */
const OPEN_END = /[=:/]$/;

function helpSuffix(separator: string, help: Candidate["help"] = ""): string {
  const text = typeof help === "string" ? help : help();
  return text === "" ? "" : separator + plain(text.replaceAll(/\s+/g, " "));
}

const QUOTE: Readonly<Record<Token["quote"], (text: string) => string>> = {
  // The second pattern has tables of all scripts, which most words do without.
  "": (text) =>
    /^[\w.,:=@%+/^-]*$/.test(text)
      ? text
      : text.replaceAll(/[^\p{L}\p{N}\p{M}_.,:=@%+/~^-]|^~/gu, String.raw`\$&`),
  '"': (text) => text.replaceAll(/["\\$`]/g, String.raw`\$&`),
  "'": (text) => text.replaceAll("'", String.raw`'\''`),
};

/**
 * Completes a command line for a shell. Never throws: after an error there are no candidates.
 * @param started facts of this process
 * @param words `SHELL LINE WORD`: the line up to the cursor, and the part of it that the shell replaces
 */
export async function answerShell(started: ProcessFacts, words: readonly string[]): Promise<string> {
  try {
    const [asking, line = "", word = ""] = words;
    const shell = COMPLETION_SHELLS.find((name) => name === asking);
    if (shell === undefined) return "";
    const { words: typed, token } = splitLine(line, shell === "fish");
    // The line starts with the program's name, or an alias of it.
    const { place, hostdir } = findPlace(typed.slice(1), token.text);
    const named = hostdir === undefined ? undefined : expandHome(hostdir, started.home);
    const context = { ...started, options: { ...started.options, hostdir: named } };
    const head = token.text.slice(0, place.skip);
    const stem = token.text.slice(place.skip);
    const found = new Map<string, Candidate>();
    for (const source of place.sources)
      for (const candidate of await listCandidates(source, stem, context).catch(() => []))
        found.set(head + candidate.text, { ...candidate, text: head + candidate.text });
    const rawKept = token.raw.endsWith(word) ? token.raw.length - word.length : 0;
    const kept = token.ends.filter((end) => end <= rawKept).length;
    const isPath = [...found.values()].some(({ path }) => path);
    // The directory may contain expansions that only the shell can do.
    const skip = isPath ? place.skip + stem.lastIndexOf("/") + 1 : place.skip;
    const lines = ANSWERS[shell]({ token, kept, skip, candidates: [...found.values()] });
    return lines.map((text) => `${text}\n`).join("");
  } catch {
    return "";
  }
}
