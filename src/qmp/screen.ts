import type { DisplayAddress, SharedDisplay } from "../machine/types.ts";
import type { QmpClient } from "./client.ts";
import { QmpError } from "./errors.ts";

/**
 * Has qemu write the screen to a file, as PPM: PNG it can only since 7.1.
 * @returns false when the machine has no graphics card
 */
export async function dumpScreen(client: QmpClient, filename: string): Promise<boolean> {
  try {
    await client.execute("screendump", { filename });
    return true;
  } catch (error) {
    if (error instanceof QmpError && /no console/i.test(error.reply.desc)) return false;
    throw error;
  }
}

/** How a running machine shows its screen. */
export interface ShownScreen {
  kind: SharedDisplay["kind"];
  at: DisplayAddress;
  asksPassword: boolean;
  encrypted: boolean;
}

/** Asks where a screen can be seen (qapi/ui.json, SpiceInfo and VncInfo); undefined when nowhere. */
export async function findShownScreen(client: QmpClient): Promise<ShownScreen | undefined> {
  const spice = await unlessUnknown(client.execute("query-spice"));
  if (spice?.enabled) {
    const { host = "", port, "tls-port": tlsPort, auth } = spice;
    const shown = port ?? tlsPort;
    return {
      kind: "spice",
      at: shown === undefined ? { socket: host } : { host, port: shown },
      asksPassword: auth !== "none",
      encrypted: port === undefined && tlsPort !== undefined,
    };
  }
  const vnc = await unlessUnknown(client.execute("query-vnc"));
  if (!vnc?.enabled) return undefined;
  const { host = "", service = "", family, auth } = vnc;
  return {
    kind: "vnc",
    at: family === "unix" ? { socket: service } : { host, port: Number(service) },
    asksPassword: auth !== "none",
    encrypted: false,
  };
}

/** A qemu without the feature does not know the command. */
async function unlessUnknown<T>(reply: Promise<T>): Promise<T | undefined> {
  try {
    return await reply;
  } catch (error) {
    if (error instanceof QmpError && error.reply.class === "CommandNotFound") return undefined;
    throw error;
  }
}
