import type { Settings } from "../config/schema.ts";
import { deriveMac } from "../machine/mac.ts";
import { networkWord, takesForwards, type NetworkRequest } from "../machine/network.ts";
import { findAddress, type RecordPlace } from "../network/addresses.ts";
import { lifelinePath, type RuntimePlace } from "../network/place.ts";
import type { Nic } from "../machine/types.ts";

export type NicSettings = Pick<Settings, "NETWORKS" | "USENETDEV" | "FORWARDS" | "MAC" | "UUID">;

/** Pure: what each card is connected to. [compat] Without NETWORKS, USENETDEV decides on the first card. */
export const networksOf = ({
  NETWORKS,
  USENETDEV,
}: Pick<Settings, "NETWORKS" | "USENETDEV">): NetworkRequest[] =>
  NETWORKS.length > 0 ? NETWORKS : [{ kind: USENETDEV ? "user" : "none" }];

/** Pure: the network cards of a machine with these settings. The first one on a network that takes forwards has them. */
export function nicsOf(settings: NicSettings): Nic[] {
  const networks = networksOf(settings);
  const first = networks.findIndex(takesForwards);
  return networks.flatMap(({ mac, link, ...network }, index) => {
    if (network.kind === "none") return [];
    return [
      {
        number: index + 1,
        mac: mac ?? macOf(settings, index + 1, network.kind !== "user"),
        link: link ?? ("up" as const),
        network,
        forwards: index === first ? settings.FORWARDS : [],
      },
    ];
  });
}

/** The cards, with the pipes of the networks among VMs. */
export const resolveNics = (place: RuntimePlace, settings: NicSettings): Nic[] =>
  nicsOf(settings).map((nic) =>
    nic.network.kind === "net" ? { ...nic, lifeline: lifelinePath(place, nic.network.name!) } : nic,
  );

/** A card as `status` and `nic list` print it. */
export interface ListedNic {
  number: number;
  network: string;
  /** Null: qemu's default. */
  mac: string | null;
  link: "up" | "down";
  /** On a network among VMs, once it has joined: its name and address there. */
  name?: string;
  address?: string;
  /** Of a running VM: programs that served it and have exited; `network`: all of a network among VMs. */
  exited?: string[];
}

export const describeNic = (place: RecordPlace, { number, network, mac, link }: Nic): ListedNic => ({
  number,
  network: networkWord(network),
  mac: mac ?? null,
  link,
  ...(network.kind === "net" && findAddress(place, network.name!, mac)),
});

/** Pure: options of FORWARDS that take effect; none without a card. */
export const effectiveForwards = (settings: NicSettings): string[] =>
  nicsOf(settings).flatMap(({ forwards }) => forwards);

/**
 * The MAC address of a card that names none; undefined: qemu's default. [compat] MAC is of the first card.
 * @param shared with other machines: qemu's default is the same in all
 */
function macOf({ MAC, UUID }: NicSettings, number: number, shared: boolean): string | undefined {
  if (number === 1 && MAC !== "auto" && !(shared && MAC === "")) return MAC || undefined;
  return UUID === "" ? undefined : deriveMac(UUID, number);
}

/** Pure: a MAC address that two cards have, and their numbers. */
export function findSameMac(nics: readonly Nic[]): { mac: string; numbers: number[] } | undefined {
  for (const { mac } of nics) {
    const numbers = nics.flatMap((nic) => (nic.mac === mac ? [nic.number] : []));
    if (mac !== undefined && numbers.length > 1) return { mac, numbers };
  }
  return undefined;
}
