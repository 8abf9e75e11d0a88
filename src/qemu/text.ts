/** Escapes a value of a `key=value,…` option: qemu takes a doubled comma literally. */
export const escapeCommas = (value: string): string => value.replaceAll(",", ",,");

/** `-chardev` argument for a Unix socket that qemu listens on. */
export const socketChardev = (id: string, path: string): string =>
  `socket,id=${id},path=${escapeCommas(path)},server=on,wait=off`;

/** A device with its properties, as `device_add` takes them. */
export type Device = { driver: string } & Record<string, string | number>;

/** The same as the value of `-device`. */
export const deviceText = ({ driver, ...properties }: Device): string =>
  [
    driver,
    ...Object.entries(properties).map(([name, value]) => `${name}=${escapeCommas(String(value))}`),
  ].join(",");
