/** Actions of `snapshots`; a module of its own, as every start loads it. */
export const SNAPSHOT_ACTIONS = [
  "list",
  "show",
  "diff",
  "ls",
  "get",
  "push",
  "rm",
  "describe",
  "protect",
  "unprotect",
] as const;
export type SnapshotAction = (typeof SNAPSHOT_ACTIONS)[number];
