/** A value inside a `key=value,…` option of qemu: a comma ends it unless doubled. */
export const escapeCommas = (value: string): string => value.replaceAll(",", ",,");

/** One word of a POSIX shell that stands for exactly `word`. */
export const shellQuote = (word: string): string =>
  /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;

/** A character device on a Unix socket that qemu listens on. */
export const socketChardev = (id: string, path: string): string =>
  `socket,id=${id},path=${escapeCommas(path)},server=on,wait=off`;
