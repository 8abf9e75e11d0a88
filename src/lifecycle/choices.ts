/** Values of `run --wait` besides seconds. In a module of its own, because every command line loads it. */
export const WAIT_EVENTS = ["ssh", "agent"] as const;
export type WaitEvent = (typeof WAIT_EVENTS)[number];

export const FORWARD_ACTIONS = ["list", "add", "remove"] as const;
export type ForwardAction = (typeof FORWARD_ACTIONS)[number];

export const NIC_ACTIONS = ["list", "add", "remove", "up", "down"] as const;
export type NicAction = (typeof NIC_ACTIONS)[number];
/** Actions of `disk`. */
export const DISK_ACTIONS = ["list", "add", "remove", "resize", "set"] as const;
export type DiskAction = (typeof DISK_ACTIONS)[number];

export const AUTOSTART_ACTIONS = ["list", "on", "off", "start", "stop", "start-all"] as const;
export type AutostartAction = (typeof AUTOSTART_ACTIONS)[number];
