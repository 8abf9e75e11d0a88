/** A value inside a `key=value,…` option of qemu: a comma ends it unless doubled. */
export const escapeCommas = (value: string): string => value.replaceAll(",", ",,");

/** A character device on a Unix socket that qemu listens on. */
export const socketChardev = (id: string, path: string): string =>
  `socket,id=${id},path=${escapeCommas(path)},server=on,wait=off`;
