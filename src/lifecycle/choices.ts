/** What `run --wait` takes besides seconds; apart from the code, for every command line loads it. */
export const WAIT_EVENTS = ["ssh", "agent"] as const;
export type WaitEvent = (typeof WAIT_EVENTS)[number];
