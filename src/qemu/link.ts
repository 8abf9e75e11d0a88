import { lstatSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { shellQuote } from "../lib/shell.ts";

/** Network devices of this host (Documentation/ABI/testing/sysfs-class-net). */
export const NET_DEVICES = "/sys/class/net";

const IFF_UP = 0x1;

/** A reason why a network device cannot be used, and what to do about it. */
export interface DeviceProblem {
  text: string;
  fix: string;
}

/** An attribute of a network device; undefined if it has none. */
export function attributeOf(device: string, name: string, devices = NET_DEVICES): string | undefined {
  try {
    return readFileSync(join(devices, device, name), "utf8").trim();
  } catch {
    return undefined;
  }
}

export const hasDevice = (device: string, devices = NET_DEVICES): boolean =>
  lstatSync(join(devices, device), { throwIfNoEntry: false }) !== undefined;

export const upCommand = (device: string): string => `sudo ip link set ${shellQuote(device)} up`;

/** Is a bridge or a tap device down? Then it passes nothing on. `operstate` also says so of one without users. */
export function findDown(
  kind: "bridge" | "tap device",
  device: string,
  devices = NET_DEVICES,
): DeviceProblem | undefined {
  const flags = Number(attributeOf(device, "flags", devices) ?? IFF_UP);
  return (flags & IFF_UP) !== 0
    ? undefined
    : { text: `the ${kind} ${device} is down`, fix: upCommand(device) };
}

/** The first name with a number that no device has: `br0`. */
export function freeName(prefix: "br" | "tap", devices = NET_DEVICES): string {
  for (let number = 0; ; number++) if (!hasDevice(`${prefix}${number}`, devices)) return `${prefix}${number}`;
}
