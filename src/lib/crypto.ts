/** What node:crypto does, which takes longer to load than most commands to run. */

/** @returns 64 hexadecimal digits */
export const sha256 = (data: string | Uint8Array): string => Bun.SHA256.hash(data, "hex");

export const randomBytes = (count: number): Buffer => crypto.getRandomValues(Buffer.alloc(count));
