import { parseMac } from "./mac.ts";

/** Most network cards of a machine. */
export const MAX_NICS = 4;

/** What a card is connected to; `none`: there is no card of this number. */
export const NETWORK_KINDS = ["user", "none", "passt", "bridge", "tap", "net"] as const;
export type NetworkKind = (typeof NETWORK_KINDS)[number];

/** One entry of `NETWORKS`. */
export interface NetworkRequest {
  kind: NetworkKind;
  /** Of the bridge, the tap device, or the network among VMs. */
  name?: string;
  /** Absent: a network among VMs reaches the outside. */
  outside?: "off";
  /** Absent: decided by the VM's UUID or qemu. */
  mac?: string | undefined;
  /** Absent: up. */
  link?: "down" | undefined;
}

/** The words, for completion. */
export const NETWORK_WORDS = ["user", "none", "passt", "bridge=", "tap=", "net="] as const;

export const NETWORK_SYNTAX =
  "user, passt, bridge=NAME, tap=NAME, net=NAME or none; options after a comma: mac=ADDRESS such as 02:1a:2b:3c:4d:5e, link=down, of net also outside=off";

/** A network interface of Linux (net/core/dev.c, dev_valid_name): at most 15 bytes, and here no unusual characters. */
const INTERFACE = /^(?!\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}$/;
/** A DNS label (RFC 1123), as it is the domain of the VMs' names. */
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** The form of the name after `=`; null: the word takes none. */
const NAME_FORM: Record<NetworkKind, RegExp | null> = {
  user: null,
  none: null,
  passt: null,
  bridge: INTERFACE,
  tap: INTERFACE,
  net: LABEL,
};

/** Rules of names, by the word before `=`. */
const NAME_RULE: Partial<Record<string, string>> = {
  net: "a network's name: 1 to 63 lower-case letters, digits and -, with a letter or digit first and last",
  bridge: "a bridge's name: 1 to 15 letters, digits and . _ -, not starting with -",
  tap: "a tap device's name: 1 to 15 letters, digits and . _ -, not starting with -",
};

/** What is allowed, for the error about a card that `parseNetwork` does not take: of a bad name only its rule. */
export function explainNetwork(text: string): string {
  const [, word = "", name] = /^([a-z]+)=([^,]*)/.exec(text) ?? [];
  const kind = NETWORK_KINDS.find((one) => one === word);
  return kind && name && NAME_FORM[kind]?.test(name) === false
    ? `${word}=NAME with ${NAME_RULE[word]}`
    : NETWORK_SYNTAX;
}

/** `net=lab,outside=off,mac=02:1a:2b:3c:4d:5e,link=down` → a card. */
export function parseNetwork(text: string): NetworkRequest | undefined {
  const [head = "", ...options] = text.split(",");
  const [, word, , name] = /^([a-z]+)(=(.*))?$/.exec(head) ?? [];
  const kind = NETWORK_KINDS.find((one) => one === word);
  if (kind === undefined || (kind === "none" && options.length > 0)) return undefined;
  const form = NAME_FORM[kind];
  if (form === null ? name !== undefined : !form.test(name ?? "")) return undefined;
  const network: NetworkRequest = { kind, ...(name !== undefined && { name }) };
  for (const option of options) {
    const mac = option.startsWith("mac=") ? parseMac(option.slice("mac=".length)) : undefined;
    if (mac !== undefined && network.mac === undefined) network.mac = mac;
    else if (option === "link=down" && network.link === undefined) network.link = "down";
    else if (option === "outside=off" && kind === "net" && network.outside === undefined)
      network.outside = "off";
    else return undefined;
  }
  return network;
}

/** The word without the card's own options: `bridge=br0`. */
export const networkWord = ({ kind, name, outside }: Omit<NetworkRequest, "mac" | "link">): string =>
  [name === undefined ? kind : `${kind}=${name}`, outside && `outside=${outside}`].filter(Boolean).join(",");

/** The text that `parseNetwork` parses. */
export const formatNetwork = ({ mac, link, ...network }: NetworkRequest): string =>
  [networkWord(network), mac && `mac=${mac}`, link && `link=${link}`].filter(Boolean).join(",");

/** Does FORWARDS apply to a card on this network? */
export const takesForwards = ({ kind }: Pick<NetworkRequest, "kind">): boolean =>
  kind === "user" || kind === "passt";
