/**
 * The words of a shell text, taken apart as bash does it (bash(1), QUOTING and EXPANSION) as far as
 * that needs no execution. Variables are expanded in `shell-expand.ts`.
 */
import { ShellText } from "./shell-text.ts";

/** A part of a word. What is quoted is never split, and makes a word even when it is empty. */
export type Piece =
  | { kind: "text"; text: string; quoted: boolean }
  | { kind: "home"; quoted: boolean; line: number }
  | { kind: "variable"; name: string; quoted: boolean; line: number; fallback: Fallback | undefined };

/** The `word` of `${NAME-word}` or, `forEmpty`, of `${NAME:-word}`. */
export interface Fallback {
  word: Word;
  forEmpty: boolean;
}

export type Word = Piece[];

/** Context of a word: after `NAME=`, within `NAME=( … )`, or in a list of arguments. */
export type WordPlace = "scalar" | "element" | "argument";

/** Maximum nesting of `${…}`, to protect the stack. */
const MAX_NESTING = 50;

/** Characters that end an unquoted word. Like every string they include `""`, the end of the text. */
const WORD_ENDS: Record<WordPlace, string> = { scalar: " \t\n;", element: " \t\n)", argument: " \t\n" };

/** Variables that the shell itself sets or uses (bash(1), Shell Variables): our `HOSTNAME` or `PWD` could differ. */
const SHELL_OWNED: ReadonlySet<string> = new Set(
  (
    "_ DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD HOSTNAME HOSTTYPE IFS LINENO MACHTYPE OLDPWD " +
    "OPTERR OPTIND OSTYPE PIPESTATUS POSIXLY_CORRECT PPID PS4 PWD RANDOM SECONDS SHELLOPTS SHLVL SRANDOM UID"
  ).split(" "),
);
const isShellOwned = (name: string): boolean =>
  SHELL_OWNED.has(name) || name.startsWith("BASH") || name.startsWith("COMP_");

/** Consumes a variable's name, `""` if there is none. @throws Unreadable for a shell variable */
export function takeVariableName(source: ShellText): string {
  const name = source.takeName();
  refuseShellOwned(source, name);
  return name;
}

/** @throws Unreadable for a shell variable */
export function refuseShellOwned(source: ShellText, name: string): void {
  if (isShellOwned(name)) source.needsBash(`${name} belongs to the shell`);
}

/**
 * Consumes one word, from its first character to the one before its end.
 * @returns its pieces; none if there was nothing but a line continuation
 * @throws Unreadable if the word is unfinished or needs bash
 */
export function takeWord(source: ShellText, place: WordPlace): Word {
  return new WordReader(source, place).unquoted(WORD_ENDS[place]);
}

class WordReader {
  #nesting = 0;

  constructor(
    private readonly source: ShellText,
    private readonly place: WordPlace,
  ) {}

  /** Reads unquoted text up to one of `ends`, which is left. */
  unquoted(ends: string): Word {
    const word: Word = [];
    // The plain character just before: "" after anything else, undefined at the very start.
    let before: string | undefined;
    for (let next = this.source.peek(); !ends.includes(next); next = this.source.peek()) {
      const line = this.source.line;
      this.source.take();
      if (next === "'") addText(word, this.source.takeSingleQuoted(), true);
      else if (next === '"') this.#doubleQuoted(word, '"', line);
      else if (next === "\\") this.#escaped(word);
      else if (next === "$") word.push(this.#dollar(false));
      else if (next === "~" && this.#isHome(before, ends))
        word.push({ kind: "home", quoted: ends !== "}", line });
      else {
        this.#refuseSpecial(next, before === undefined, ends);
        addText(word, next, false);
        before = next;
        continue;
      }
      before = "";
    }
    return word;
  }

  /** The character after a backslash, which it makes plain. */
  #escaped(word: Word): void {
    const { source } = this;
    const atEnd = source.matches(/$/y);
    if (this.place === "argument") {
      // These blanks are invisible, and the first would become an argument.
      if (source.matches(/[ \t]+(\n|$)/y)) source.needsBash("a blank after the backslash that ends the line");
      if (atEnd) return;
    } else if (atEnd) source.needsBash("a backslash as the last character");
    addText(word, source.take(), true);
  }

  /** Unquoted characters that mean more than themselves. */
  #refuseSpecial(character: string, atStart: boolean, ends: string): void {
    const { source, place } = this;
    if (character === "`") source.needsBash("a command in `…`");
    // Within ${NAME:-…} only <(…) and >(…) would be special.
    if ((ends === "}" ? "<>" : "&|;<>()").includes(character)) source.needsBash(`an unquoted ${character}`);
    if (place !== "element") return;
    if (character === "{") source.needsBash("an unquoted {");
    if (character === "[" && atStart) source.needsBash("an element that starts with [");
  }

  /** Whether the `~` just read, with `before` to its left, means the home directory (bash(1), Tilde Expansion). */
  #isHome(before: string | undefined, ends: string): boolean {
    const { source } = this;
    const inPath = this.place === "scalar" && ends !== "}";
    if (before !== undefined && before !== ":" && before !== "=") return false;
    const next = source.peek();
    if (next !== "" && "'\"\\".includes(next)) return false;
    if (before === "=" || (before === ":" && !inPath)) source.needsBash(`a ~ after ${before}`);
    if (ends.includes(next) || next === "/" || (next === ":" && inPath)) return true;
    return source.needsBash("a ~ with more than / after it");
  }

  /** Text in double quotes, from after the opening one to the closing one; in "${NAME:-…}" to the `}`. */
  #doubleQuoted(word: Word, end: '"' | "}", line: number): Word {
    const { source } = this;
    addText(word, "", true);
    for (;;) {
      addText(word, source.takeRun(/[\w .,:;=@%+/-]*/y), true);
      if (source.accept(end)) return word;
      const next = source.take();
      if (next === "") source.unterminated(end === "}" ? "${" : end, line);
      if (next === "$") word.push(this.#dollar(true));
      else if (next === "`") source.needsBash("a command in `…`");
      else if (end === "}" && "\\'\"".includes(next)) source.needsBash(`a ${next} in \${…} in double quotes`);
      else if (next === "\\" && source.matches(/[$`"\\]/y)) addText(word, source.take(), true);
      else addText(word, next, true);
    }
  }

  /** What a `$`, just read, begins; a `$` itself if that is nothing. */
  #dollar(quoted: boolean): Piece {
    const { source } = this;
    const line = source.line;
    if (source.accept("{")) return this.#inBraces(quoted, line);
    const name = takeVariableName(source);
    if (name !== "") return { kind: "variable", name, quoted, line, fallback: undefined };
    const next = source.peek();
    if (/^[0-9@*#?!$([-]/.test(next) || (!quoted && /^['"]/.test(next)))
      source.needsBash(`an expansion $${next}…`);
    return { kind: "text", text: "$", quoted };
  }

  /** `${NAME}`, `${NAME-word}` or `${NAME:-word}`, from its name on. */
  #inBraces(quoted: boolean, line: number): Piece {
    const { source } = this;
    const name = takeVariableName(source);
    if (name === "") source.needsBash("a ${…} without a name");
    if (source.accept("}")) return { kind: "variable", name, quoted, line, fallback: undefined };

    const forEmpty = source.accept(":");
    if (!source.accept("-")) source.needsBash("a ${…} with more than a name and a :-word");
    if (++this.#nesting > MAX_NESTING) source.needsBash("${…} nested too deep");
    const word = quoted ? this.#doubleQuoted([], "}", line) : this.unquoted("}");
    if (!quoted && !source.accept("}")) source.unterminated("${", line);
    this.#nesting--;
    return { kind: "variable", name, quoted, line, fallback: { word, forEmpty } };
  }
}

/** Adds plain text, to the last piece if it is of the same sort. */
function addText(word: Word, text: string, quoted: boolean): void {
  const last = word.at(-1);
  if (last?.kind === "text" && last.quoted === quoted) last.text += text;
  else word.push({ kind: "text", text, quoted });
}
