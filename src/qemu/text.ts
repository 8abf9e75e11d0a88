/** A value inside a `key=value,…` option of qemu: a comma ends it unless doubled. */
export const escapeCommas = (value: string): string => value.replaceAll(",", ",,");

/** One word of a POSIX shell that stands for exactly `word`. */
export const shellQuote = (word: string): string =>
  /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
