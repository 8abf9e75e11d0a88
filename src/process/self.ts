/** Where a compiled program finds its own modules (Bun, `bun build --compile`). */
const EMBEDDED = "/$bunfs/";

/** This program, to be started again: compiled it is one file, else the runtime runs its source. */
export const selfCommand = (): string[] =>
  Bun.main.startsWith(EMBEDDED) ? [process.execPath] : [process.execPath, Bun.main];
