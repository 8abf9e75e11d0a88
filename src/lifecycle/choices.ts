/** Values of `run --wait` besides seconds. In a module of its own, because every command line loads it. */
export const WAIT_EVENTS = ["ssh", "agent"] as const;
export type WaitEvent = (typeof WAIT_EVENTS)[number];

/** Actions of `disk`. */
export const DISK_ACTIONS = ["list", "add", "remove", "resize"] as const;
export type DiskAction = (typeof DISK_ACTIONS)[number];
