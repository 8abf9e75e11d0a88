/** One word of a POSIX shell that stands for exactly `word`. */
export const shellQuote = (word: string): string =>
  /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;

/** A line that a POSIX shell reads as exactly these words. */
export const shellLine = (words: readonly string[]): string => words.map(shellQuote).join(" ");

/** Hint for a file of the wrong kind: `rm` would not take a directory, and what it is may be wanted. */
export const moveAside = (path: string): string =>
  `move it out of the way: ${shellLine(["mv", path, `${path}.old`])}`;

/** Shells whose command lines the program can complete. */
export const COMPLETION_SHELLS = ["bash", "zsh", "fish"] as const;
export type CompletionShell = (typeof COMPLETION_SHELLS)[number];
