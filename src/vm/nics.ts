import type { Settings } from "../config/schema.ts";
import { deriveMac } from "../machine/mac.ts";
import type { NetworkRequest } from "../machine/network.ts";
import type { Nic } from "../machine/types.ts";

export type NicSettings = Pick<Settings, "NETWORKS" | "USENETDEV" | "FORWARDS" | "MAC" | "UUID">;

/** Pure: what each card is connected to. [compat] Without NETWORKS, USENETDEV decides on the first card. */
export const networksOf = ({
  NETWORKS,
  USENETDEV,
}: Pick<Settings, "NETWORKS" | "USENETDEV">): NetworkRequest[] =>
  NETWORKS.length > 0 ? NETWORKS : [{ kind: USENETDEV ? "user" : "none" }];

/** Pure: the network cards of a machine with these settings. The first one on a user-mode network has the forwards. */
export function nicsOf(settings: NicSettings): Nic[] {
  const networks = networksOf(settings);
  const first = networks.findIndex(({ kind }) => kind === "user");
  return networks.flatMap(({ kind, mac, link }, index) => {
    if (kind === "none") return [];
    return [
      {
        number: index + 1,
        mac: mac ?? macOf(settings, index + 1),
        link: link ?? ("up" as const),
        forwards: index === first ? settings.FORWARDS : [],
      },
    ];
  });
}

/** Pure: options of FORWARDS that take effect; none without a card. */
export const effectiveForwards = (settings: NicSettings): string[] =>
  nicsOf(settings).flatMap(({ forwards }) => forwards);

/** The MAC address of a card that names none; undefined: qemu's default. [compat] MAC is of the first card. */
function macOf({ MAC, UUID }: NicSettings, number: number): string | undefined {
  if (number === 1 && MAC !== "auto") return MAC || undefined;
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
