import { parseMac } from "./mac.ts";

/** Most network cards of a machine. */
export const MAX_NICS = 4;

/** What a card is connected to; `none`: there is no card of this number. */
export const NETWORK_KINDS = ["user", "none"] as const;
export type NetworkKind = (typeof NETWORK_KINDS)[number];

/** One entry of `NETWORKS`. */
export interface NetworkRequest {
  kind: NetworkKind;
  /** Absent: decided by the VM's UUID or qemu. */
  mac?: string | undefined;
  /** Absent: up. */
  link?: "down" | undefined;
}

export const NETWORK_SYNTAX =
  "user or none; after user: ,mac=ADDRESS such as 02:1a:2b:3c:4d:5e, and ,link=down";

/** `user,mac=02:1a:2b:3c:4d:5e,link=down` → a card. */
export function parseNetwork(text: string): NetworkRequest | undefined {
  const [head = "", ...options] = text.split(",");
  const kind = NETWORK_KINDS.find((word) => word === head);
  if (kind === undefined || (kind === "none" && options.length > 0)) return undefined;
  const network: NetworkRequest = { kind };
  for (const option of options) {
    const mac = option.startsWith("mac=") ? parseMac(option.slice("mac=".length)) : undefined;
    if (mac !== undefined && network.mac === undefined) network.mac = mac;
    else if (option === "link=down" && network.link === undefined) network.link = "down";
    else return undefined;
  }
  return network;
}

/** The text that `parseNetwork` parses. */
export const formatNetwork = ({ kind, mac, link }: NetworkRequest): string =>
  [kind, mac && `mac=${mac}`, link && `link=${link}`].filter(Boolean).join(",");
