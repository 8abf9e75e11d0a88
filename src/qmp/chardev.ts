import type { QmpClient } from "./client.ts";

/** State of a character device on a socket. */
export interface ChardevState {
  /** A client is connected on the host. */
  connected: boolean;
  /** A program in the guest has opened it; always true for a serial port. */
  guestOpen: boolean;
}

/**
 * Queries the character device of a socket (qapi/char.json, query-chardev).
 * @param name the socket's file name
 * @returns undefined if qemu has none
 */
export async function findChardev(client: QmpClient, name: string): Promise<ChardevState | undefined> {
  const devices = await client.execute("query-chardev");
  const device = devices.find(({ filename }) => filename.split(/[:/,]/).includes(name));
  return (
    device && { connected: !device.filename.startsWith("disconnected:"), guestOpen: device["frontend-open"] }
  );
}
