/** Why reading a shell text stopped: it `needs-bash`, or is surely an `error`. Caught where reading the file starts. */
export class Unreadable extends Error {
  constructor(
    readonly kind: "needs-bash" | "error",
    readonly line: number,
    message: string,
    readonly hint?: string,
  ) {
    super(message);
    this.name = "Unreadable";
  }
}

/** Characters that a settings file cannot have anywhere. */
const STRAY = [
  { pattern: /\0/, kind: "error", message: "a NUL byte: this is not a text file", hint: undefined },
  {
    pattern: /^\uFEFF/,
    kind: "error",
    message: "a byte order mark before the first line",
    hint: "remove it: sed -i '1s/^\\xEF\\xBB\\xBF//' FILE",
  },
  {
    pattern: /\r/,
    kind: "error",
    message: "a carriage return: the file has DOS line ends",
    hint: "convert it: sed -i 's/\\r$//' FILE",
  },
  // bash uses these two as internal quoting marks, which sometimes leak into values.
  { pattern: /[\x01\x7F]/, kind: "needs-bash", message: "a control character", hint: undefined },
] as const;

const ANY_STRAY = /^\uFEFF|[\0\x01\r\x7F]/;

const BLANKS = /[ \t]+/y;

/** A position in a shell text: characters as bash's lexer sees them, and the current line. */
export class ShellText {
  /** The current line, from 1. */
  line = 1;
  #at = 0;

  /** @throws Unreadable for a text with characters that a settings file cannot have */
  constructor(private readonly text: string) {
    if (!ANY_STRAY.test(text)) return;
    for (const { pattern, kind, message, hint } of STRAY) {
      const index = text.search(pattern);
      if (index >= 0) throw new Unreadable(kind, text.slice(0, index).split("\n").length, message, hint);
    }
  }

  /** The next character, `""` at the end. Skips a backslash-newline before it, as everywhere but in '…' and comments. */
  peek(): string {
    while (this.text.startsWith("\\\n", this.#at)) {
      this.#at += 2;
      this.line++;
    }
    return this.text.charAt(this.#at);
  }

  /** Consumes one character as it stands. */
  take(): string {
    const character = this.text.charAt(this.#at);
    this.#at += character.length;
    if (character === "\n") this.line++;
    return character;
  }

  /** Consumes the next character if it is this one. */
  accept(character: string): boolean {
    if (this.peek() !== character) return false;
    this.take();
    return true;
  }

  /** True if the text continues with `pattern`, which is sticky (`/…/y`). */
  matches(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at;
    return pattern.test(this.text);
  }

  /** Consumes what matches `pattern`, which is sticky and matches no newline; `""` where the text differs. */
  takeRun(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const run = pattern.exec(this.text)?.[0] ?? "";
    this.#at += run.length;
    return run;
  }

  /** Consumes a line that matches `pattern`, sticky and up to the newline, which is left. @returns its groups */
  takeLine(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.text);
    if (!match) return undefined;
    this.#at += match[0].length;
    return match;
  }

  /** Consumes a variable's name; `""` if there is none. */
  takeName(): string {
    let name = "";
    for (let run; run !== ""; name += run) {
      // Past a backslash-newline.
      this.peek();
      run = this.takeRun(name === "" ? /[A-Za-z_]\w*/y : /\w+/y);
    }
    return name;
  }

  /** Consumes all up to the closing `'`, and that too; the opening one has been read. */
  takeSingleQuoted(): string {
    const end = this.text.indexOf("'", this.#at);
    if (end < 0) this.unterminated("'", this.line);
    const text = this.text.slice(this.#at, end);
    this.#at = end + 1;
    this.line += text.split("\n").length - 1;
    return text;
  }

  /** Consumes blanks. */
  skipBlanks(): void {
    do this.peek();
    while (this.takeRun(BLANKS) !== "");
  }

  /** Consumes blanks, newlines and comments. Only for where a word could start: elsewhere `#` is a plain character. */
  skipLines(): void {
    for (let next = this.peek(); next !== ""; next = this.peek()) {
      if (next === "#") this.#skipComment();
      else if (next === "\n") this.take();
      else if (this.takeRun(BLANKS) === "") return;
    }
  }

  #skipComment(): void {
    const end = this.text.indexOf("\n", this.#at);
    this.#at = end < 0 ? this.text.length : end;
  }

  /** Stops: the text here needs bash. */
  needsBash(what: string): never {
    throw new Unreadable("needs-bash", this.line, what);
  }

  /** Stops: `opening` on `line` is not closed. */
  unterminated(opening: string, line: number): never {
    throw new Unreadable("error", line, `${opening} without its end`);
  }
}
