import { closeSync, openSync } from "node:fs";
import { sendDescriptor } from "../process/descriptors.ts";
import { exec } from "../process/exec.ts";
import { SENDER_FD } from "../process/receive.ts";
import { setInterface } from "../process/libc.ts";

/** First word of the command line by which this program is started in a network's namespace. */
export const TAP_WORD = "__tap";
/** The bridge in a network's namespace (scripts/network/lan.sh). */
export const BRIDGE = "br0";

/**
 * Creates a tap device on a bridge of this network namespace and sends it to the starter. The kernel removes the device with
 * its last descriptor.
 */
export async function sendTap(bridge: string): Promise<void> {
  const fd = openSync("/dev/net/tun", "r+");
  const name = setInterface(fd, "vm%d");
  await exec(["ip", "link", "set", "dev", name, "master", bridge, "up"], {
    what: `cannot connect ${name} to ${bridge}`,
  });
  sendDescriptor(SENDER_FD, Buffer.from("\0"), fd);
  closeSync(fd);
}
