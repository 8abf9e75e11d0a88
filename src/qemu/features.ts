/** First version of qemu with a feature. */
export type Since = readonly [major: number, minor: number];

/** Snapshots of a running guest: `on-cbw-error` and `cbw-timeout` of copy-before-write (qapi/block-core.json). */
export const LIVE_SINCE: Since = [7, 1];

/** Pure: is `version` (`7.2.22`) at least the other one? */
export function isSince(version: string, [wantedMajor, wantedMinor]: Since): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}
