import type { QmpClient } from "./client.ts";

/** A line to the guest, as qemu sees it. */
export interface Line {
  /** A client is connected on the host. */
  taken: boolean;
  /** A program in the guest has it open; a serial port always counts as open. */
  guestOpen: boolean;
}

/**
 * Looks at the character device behind a socket (qapi/char.json, query-chardev).
 * @param name the socket's file name
 * @returns undefined when this qemu has none
 */
export async function findLine(client: QmpClient, name: string): Promise<Line | undefined> {
  const devices = await client.execute("query-chardev");
  const device = devices.find(({ filename }) => filename.split(/[:/,]/).includes(name));
  return (
    device && { taken: !device.filename.startsWith("disconnected:"), guestOpen: device["frontend-open"] }
  );
}
