/** PATH_MAX of Linux, without the NUL. A longer text is cut off by who reads it. */
const MAX_BYTES = 4095;

const splitPath = (path: string): string[] => path.split("/").filter((name) => name !== "" && name !== ".");

/**
 * Pure: the target of a symlink, for a mount on this host, where `/` and one `..` too many refer to files of the host. Paths
 * are bytes (latin1).
 * @param link below the mount point: `etc/mtab`. The kernel asks for real directories: none of them is a symlink
 * @param served the mounted directory, as the guest has it: `/`, `/srv`
 * @returns the target as it is, or one with as few `..` as possible; undefined if it refers, or could refer, to a file outside
 */
export function containTarget(link: string, target: string, served: string): string | undefined {
  const above = splitPath(link).slice(0, -1);
  const root = splitPath(served);
  const names = splitPath(target);
  const climbs = names.findIndex((name) => name !== "..");
  const up = climbs < 0 ? names.length : climbs;
  const down = names.slice(up);
  // Of `a/..` nothing is known: `a` may be a symlink, too.
  if (target.includes("\0") || down.includes("..")) return undefined;
  const isAbsolute = target.startsWith("/");
  if (!isAbsolute && up <= above.length) return target.length > MAX_BYTES ? undefined : target;
  const from = isAbsolute ? [] : [...root, ...above];
  const inGuest = [...from.slice(0, Math.max(0, from.length - up)), ...down];
  if (!root.every((name, index) => inGuest[index] === name)) return undefined;
  const contained = relativePath(above, inGuest.slice(root.length));
  return contained.length > MAX_BYTES ? undefined : contained;
}

function relativePath(from: readonly string[], to: readonly string[]): string {
  const differs = from.findIndex((name, index) => name !== to[index]);
  const common = differs < 0 ? from.length : differs;
  return [...from.slice(common).map(() => ".."), ...to.slice(common)].join("/") || ".";
}
