import type { DisplayAddress, SharedDisplay } from "../machine/types.ts";
import { saysNoConsole } from "../lib/program-messages.ts";
import type { QmpClient } from "./client.ts";
import { QmpError } from "./errors.ts";

/**
 * Writes the screen to a file as PPM: qemu supports PNG only since 7.1.
 * @returns false if the machine has no graphics card
 */
export async function dumpScreen(client: QmpClient, filename: string): Promise<boolean> {
  try {
    await client.execute("screendump", { filename });
    return true;
  } catch (error) {
    if (error instanceof QmpError && saysNoConsole(error.reply.desc)) return false;
    throw error;
  }
}

/** Display of a running machine. */
export interface DisplayState {
  kind: SharedDisplay["kind"];
  at: DisplayAddress;
  asksPassword: boolean;
  encrypted: boolean;
}

/** Queries the display (qapi/ui.json, SpiceInfo and VncInfo); undefined if there is none. */
export async function queryDisplay(client: QmpClient): Promise<DisplayState | undefined> {
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

/** Undefined for a qemu that is built without the command. */
async function unlessUnknown<T>(reply: Promise<T>): Promise<T | undefined> {
  try {
    return await reply;
  } catch (error) {
    if (error instanceof QmpError && error.reply.class === "CommandNotFound") return undefined;
    throw error;
  }
}
