/** Expands the words of a shell text as `bash -fu`: without globbing, and an unset variable is an error. */
import { Unreadable } from "./shell-text.ts";
import type { Piece, Word } from "./shell-words.ts";

/** A bash variable: a scalar, or an array without gaps. */
export type SettingValue = string | string[];

/** The value of a variable outside the text; undefined if unset. */
export type Lookup = (name: string) => SettingValue | undefined;

/** A piece after expansion. Only unquoted parts are split into words or vanish when empty. */
interface Part {
  text: string;
  quoted: boolean;
}

/**
 * Limit of the expansion of one text: characters and array elements copied. `A=$A$A` on 40 lines would need terabytes;
 * settings are far below.
 */
const MAX_EXPANSION = 16 * 1024 * 1024;

/** Variables that bash sets if they are not in the environment. */
const SHELL_DEFAULTED = new Set(["PATH", "SHELL", "TERM"]);

/** The variables at one point of a text: its own take precedence over those outside. */
export class Scope {
  readonly #own = new Map<string, SettingValue>();
  #expanded = 0;

  constructor(private readonly lookup: Lookup) {}

  get(name: string): SettingValue | undefined {
    return this.#own.get(name) ?? this.lookup(name);
  }

  set(name: string, value: SettingValue): void {
    this.#own.set(name, value);
  }

  /** Counts `size` characters or elements about to be created on `line`. @throws Unreadable above the limit */
  charge(size: number, line: number): void {
    this.#expanded += size;
    if (this.#expanded > MAX_EXPANSION)
      throw new Unreadable("needs-bash", line, "values that grow too large");
  }

  /** The value of a word that is not split, as after `NAME=`. */
  expandWhole(word: Word): string {
    return this.#expand(word)
      .map((part) => part.text)
      .join("");
  }

  /**
   * The value of a word within a list, undefined if it vanishes: empty and nowhere quoted.
   * @param split what to do with unquoted blanks from variables: refuse them (bash would split there), or keep them
   */
  expandInList(word: Word, split: "refuse" | "keep", line: number): string | undefined {
    const parts = this.#expand(word);
    if (split === "refuse" && parts.some((part) => !part.quoted && /[ \t\n]/.test(part.text)))
      throw new Unreadable("needs-bash", line, "an unquoted value with a blank in it, which bash splits");
    const text = parts.map((part) => part.text).join("");
    return text !== "" || parts.some((part) => part.quoted) ? text : undefined;
  }

  #expand(word: Word): Part[] {
    return word.flatMap((piece) => {
      switch (piece.kind) {
        case "text":
          return piece;
        case "home":
          return this.#home(piece.quoted, piece.line);
        case "variable":
          return this.#variable(piece);
      }
    });
  }

  /** Where HOME is unset bash asks the password database; of `/` and `~/x` it makes `//x`, POSIX.1-2024 `/x`. */
  #home(quoted: boolean, line: number): Part {
    const home = this.get("HOME");
    if (typeof home !== "string" || home === "" || home.endsWith("/"))
      throw new Unreadable("needs-bash", line, "a ~ without a proper HOME");
    this.charge(home.length, line);
    return { text: home, quoted };
  }

  #variable({ name, quoted, line, fallback }: Extract<Piece, { kind: "variable" }>): Part | Part[] {
    const value = this.get(name);
    const text = typeof value === "object" ? value[0] : value; // $ARRAY is its first element
    if (text === undefined && SHELL_DEFAULTED.has(name))
      throw new Unreadable("needs-bash", line, `${name}, which bash sets where it is unset`);
    if (fallback && (text === undefined || (text === "" && fallback.forEmpty)))
      return this.#expand(fallback.word);
    if (text === undefined)
      throw new Unreadable("error", line, `${name} is not set`, `write \${${name}-} if it may be empty`);
    this.charge(text.length, line);
    return { text, quoted };
  }
}
