/** What arguments of `rescue` take; apart from the code, for every command line loads it. */
export const RESCUE_ACTIONS = ["build", "list"] as const;

/** How the initramfs is compressed. */
export const COMPRESSIONS = ["none", "gzip", "zstd", "lz4", "xz"] as const;
export type Compression = (typeof COMPRESSIONS)[number];
