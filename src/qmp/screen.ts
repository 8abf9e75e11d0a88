import type { DisplayAddress, SharedDisplay } from "../machine/types.ts";
import { QmpError, type QmpClient } from "./client.ts";

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
  const spice = await ask(client, "query-spice");
  if (spice.enabled) {
    const port = spice.port ?? spice["tls-port"];
    return {
      kind: "spice",
      at: port === undefined ? { socket: spice.host } : { host: spice.host, port },
      asksPassword: spice.auth !== "none",
      encrypted: spice.port === undefined && port !== undefined,
    };
  }
  const vnc = await ask(client, "query-vnc");
  if (!vnc.enabled) return undefined;
  return {
    kind: "vnc",
    at: vnc.family === "unix" ? { socket: vnc.service } : { host: vnc.host, port: Number(vnc.service) },
    asksPassword: vnc.auth !== "none",
    encrypted: false,
  };
}

/** A qemu without the feature does not know the question. */
async function ask(client: QmpClient, question: string): Promise<Record<string, any>> {
  try {
    return (await client.execute(question)) as Record<string, any>;
  } catch (error) {
    if (error instanceof QmpError && error.reply.class === "CommandNotFound") return { enabled: false };
    throw error;
  }
}
