/** Escapes a value of a `key=value,…` option: qemu takes a doubled comma literally. */
export const escapeCommas = (value: string): string => value.replaceAll(",", ",,");

/** `-chardev` argument for a Unix socket that qemu listens on. */
export const socketChardev = (id: string, path: string): string =>
  `socket,id=${id},path=${escapeCommas(path)},server=on,wait=off`;
