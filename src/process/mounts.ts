/** FUSE mounts of this program: found in /proc, which asks no filesystem that may hang, and removed. */
import { readFileSync } from "node:fs";
import { findProgram } from "./exec.ts";

/** Both names of libfuse's program: restic looks for one or the other, by its version. */
export const findFusermount = (): string | undefined =>
  findProgram("fusermount3") ?? findProgram("fusermount");

/** proc(5): white space and backslashes of a path are octal. */
const unescapePath = (text: string): string =>
  Buffer.from(
    Buffer.from(text)
      .toString("latin1")
      .replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8))),
    "latin1",
  ).toString();

/** Pure: mount points of FUSE filesystems at or below a directory, deepest first, from mountinfo (proc(5)). */
export function parseFuseMounts(mountinfo: string, directory: string): string[] {
  const points = mountinfo.split("\n").flatMap((line) => {
    const [fields = "", rest = ""] = line.split(" - ");
    if (!/^fuse(\.|blk| )/.test(rest)) return [];
    const point = unescapePath(fields.split(" ")[4] ?? "");
    return point === directory || point.startsWith(`${directory}/`) ? [point] : [];
  });
  return points.toSorted((one, other) => other.length - one.length);
}

/** @param directory absolute, symlinks resolved */
export const listFuseMounts = (directory: string): string[] =>
  parseFuseMounts(readFileSync("/proc/self/mountinfo", "utf8"), directory);

/**
 * Unmounts a FUSE filesystem, even one in use or without its server: what is open stays so (fusermount3(1), -z).
 * @returns whether it is gone
 */
export function unmountFuse(point: string): boolean {
  const fusermount = findFusermount();
  const argv = fusermount ? [fusermount, "-u", "-z", "--", point] : ["umount", "-l", "--", point];
  return Bun.spawnSync(argv, { stdout: "ignore", stderr: "ignore" }).success;
}
