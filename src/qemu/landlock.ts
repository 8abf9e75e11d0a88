import type { JailPath } from "./jail.ts";

/** What the kernel is to refuse a qemu (landlock(7)). Sockets it may create. */
const FILE_RIGHTS = "write-file";
const RIGHTS = [
  FILE_RIGHTS,
  ...["reg", "dir", "sym", "fifo", "char", "block"].map((kind) => `make-${kind}`),
  "remove-file",
  "remove-dir",
  // To rename from one directory to another.
  "refer",
].join(",");

/**
 * Pure: arguments of util-linux's setpriv, from version 2.40 on, by which qemu writes only to what it is given for that. Other
 * than seal-jail.ts, that needs no rights; it is in force before qemu is started, so that no file may be missing.
 * @param descriptors paths of those that qemu inherits and opens again
 */
export const buildLandlockArgs = (paths: readonly JailPath[], descriptors: readonly string[]): string[] => [
  "--landlock-access",
  `fs:${RIGHTS}`,
  ...paths
    .filter(({ access }) => access === "write" || access === "device")
    .flatMap(({ path, isDirectory }) => allow(isDirectory ? RIGHTS : FILE_RIGHTS, path)),
  ...descriptors.flatMap((path) => allow(FILE_RIGHTS, path)),
];

const allow = (rights: string, path: string): string[] => [
  "--landlock-rule",
  `path-beneath:${rights}:${path}`,
];
