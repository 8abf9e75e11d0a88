/** Actions of `snapshots`; a module of its own, as every start loads it. */
export const SNAPSHOT_ACTIONS = [
  "list",
  "show",
  "diff",
  "ls",
  "get",
  "mount",
  "push",
  "rm",
  "describe",
  "protect",
  "unprotect",
] as const;
export type SnapshotAction = (typeof SNAPSHOT_ACTIONS)[number];

/** What `export` writes and `import` reads: the program's own format, or one of other programs. */
export const TRANSFER_FORMATS = ["vm", "ova"] as const;
export type TransferFormat = (typeof TRANSFER_FORMATS)[number];
