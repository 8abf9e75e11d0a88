/** Files of a machine's saved state (ram-state.ts). */
export const STATE_FILES = { ram: "ram", devices: "devices" } as const;
