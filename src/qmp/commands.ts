import { hasErrno } from "../lib/errors.ts";
import { isUnixSocketAlive } from "../process/libc.ts";
import { QmpClient, withSocket } from "./client.ts";
import type { QmpEvent } from "./protocol.ts";

/** Why qemu says a guest has ended (qapi/run-state.json, ShutdownCause). */
export interface Shutdown {
  reason: string;
  /** The guest itself asked for it. */
  guest: boolean;
}

export function parseShutdown(event: QmpEvent): Shutdown | undefined {
  if (event.event !== "SHUTDOWN") return undefined;
  const { reason, guest } = event.data;
  return { reason: typeof reason === "string" ? reason : "unknown", guest: guest === true };
}

/** Presses the ACPI power button. */
export async function powerDown(client: QmpClient): Promise<void> {
  await client.execute("system_powerdown");
}

/** Ends qemu at once; its images are flushed first. */
export async function quit(client: QmpClient): Promise<void> {
  await client.execute("quit").catch(() => {});
}

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
  const devices = (await client.execute("query-chardev")) as { filename: string; "frontend-open": boolean }[];
  const device = devices.find(({ filename }) => filename.split(/[:/,]/).includes(name));
  return (
    device && { taken: !device.filename.startsWith("disconnected:"), guestOpen: device["frontend-open"] }
  );
}

/**
 * Does a qemu hold this socket? A connection that is accepted or queued is proof, also when its one client
 * is somebody else: the kernel refuses once the process is dead.
 */
export async function isListening(path: string): Promise<boolean> {
  try {
    return await withSocket(path, async (address) => isUnixSocketAlive(address));
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR", "ECONNREFUSED")) return false;
    throw error;
  }
}
