import { statSync } from "node:fs";

/** The disk whose image is this file, by whatever path. */
export const findAttached = <Disk extends { path: string }>(
  disks: readonly Disk[],
  path: string,
): Disk | undefined => disks.find((disk) => isSameFile(disk.path, path));

export function isSameFile(one: string, other: string): boolean {
  try {
    const [a, b] = [statSync(one), statSync(other)];
    return a.ino === b.ino && a.dev === b.dev;
  } catch {
    return one === other;
  }
}
