/** What `snapshots` does; apart from the code, for every command line loads it. */
export const SNAPSHOT_ACTIONS = [
  "list",
  "show",
  "diff",
  "push",
  "rm",
  "describe",
  "protect",
  "unprotect",
] as const;
export type SnapshotAction = (typeof SNAPSHOT_ACTIONS)[number];
