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

/** libfuse's `subtype` of what `snapshots mount` mounts. */
export const OWN_SUBTYPE = "vm";

/** Pure: mount points of filesystems of a type, deepest first, from mountinfo (proc(5)). */
function parseMounts(mountinfo: string, type: RegExp): string[] {
  const points = mountinfo.split("\n").flatMap((line) => {
    const [fields = "", rest = ""] = line.split(" - ");
    return type.test(rest) ? [unescapePath(fields.split(" ")[4] ?? "")] : [];
  });
  return points.toSorted((one, other) => other.length - one.length);
}

/** Pure: mount points of FUSE filesystems at or below a directory, deepest first. */
export const parseFuseMounts = (mountinfo: string, directory: string): string[] =>
  parseMounts(mountinfo, /^fuse(\.|blk| )/).filter(
    (point) => point === directory || point.startsWith(`${directory}/`),
  );

const readMounts = (): string => readFileSync("/proc/self/mountinfo", "utf8");

/** @param directory absolute, symlinks resolved */
export const listFuseMounts = (directory: string): string[] => parseFuseMounts(readMounts(), directory);

/** How long a filesystem may take to answer. */
const ANSWER_MS = 2000;

/**
 * Mount points of `snapshots mount` whose sshfs was killed: nothing answers there until they are unmounted.
 * @param wanted only this one
 */
export const listDeadMounts = (wanted?: string): string[] =>
  parseMounts(readMounts(), new RegExp(`^fuse\\.${OWN_SUBTYPE} `)).filter(
    (point) => (wanted === undefined || point === wanted) && isDead(point),
  );

/** Another process asks: one that hangs, or another user's, counts as alive. */
function isDead(point: string): boolean {
  const env = { ...process.env, LC_ALL: "C" };
  // Of the filesystem, as the kernel keeps what is known of its files for a second.
  const { stderr } = Bun.spawnSync(["stat", "-f", "--", point], {
    stdout: "ignore",
    env,
    timeout: ANSWER_MS,
  });
  return stderr.includes("Transport endpoint is not connected");
}

/**
 * Unmounts a FUSE filesystem, even one in use or without its server: what is open stays so (fusermount3(1), -z).
 * @returns whether it is gone
 */
export function unmountFuse(point: string): boolean {
  const fusermount = findFusermount();
  const argv = fusermount ? [fusermount, "-u", "-z", "--", point] : ["umount", "-l", "--", point];
  return Bun.spawnSync(argv, { stdout: "ignore", stderr: "ignore" }).success;
}
