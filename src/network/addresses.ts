import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { sha256 } from "../lib/crypto.ts";
import { readSmall } from "../lib/read-file.ts";
import { toJson } from "../lib/json.ts";
import { replaceFile } from "../store/files.ts";

/** A card on a network among VMs, with its fixed address. */
export interface Member {
  mac: string;
  /** A DNS label. */
  name: string;
  /** Last byte of its address. */
  host: number;
}

/** Last bytes of addresses that VMs get; those below are the network's own. */
const FIRST_HOST = 16;
const LAST_HOST = 254;

const number = (text: string): number => Number.parseInt(sha256(text).slice(0, 12), 16);

/** Pure: the first three bytes of a network's addresses, by its name: `10.77.3`. Not slirp's 10.0. */
export function prefixOf(network: string): string {
  const hash = number(`network ${network}`);
  return `10.${1 + (hash % 255)}.${Math.floor(hash / 255) % 256}`;
}

/**
 * Pure: the member with this MAC address, as recorded; a new one gets the address that its MAC address yields, or the next
 * free one, and its name, with a number if another has that.
 * @returns undefined if all addresses are taken
 */
export function findMember(members: readonly Member[], mac: string, wanted: string): Member | undefined {
  const others = members.filter((member) => member.mac !== mac);
  const known = members.find((member) => member.mac === mac);
  const isNamed = (name: string): boolean => others.some((member) => member.name === name);
  let name = wanted;
  for (let count = 2; isNamed(name); count++) name = `${wanted.slice(0, 60)}-${count}`;
  if (known) return { ...known, name };
  const taken = new Set(others.map(({ host }) => host));
  const count = LAST_HOST - FIRST_HOST + 1;
  const first = number(`address ${mac}`) % count;
  for (let step = 0; step < count; step++) {
    const host = FIRST_HOST + ((first + step) % count);
    if (!taken.has(host)) return { mac, name, host };
  }
  return undefined;
}

/** Where the members of a network are recorded, so that their addresses stay. */
export const recordPath = (cacheDirectory: string, network: string): string =>
  join(cacheDirectory, "networks", `${network}.json`);

const isMember = (item: unknown): item is Member => {
  const { mac, name, host } = (item ?? {}) as Record<string, unknown>;
  return (
    typeof mac === "string" &&
    /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac) &&
    typeof name === "string" &&
    /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(name) &&
    Number.isInteger(host) &&
    (host as number) >= FIRST_HOST &&
    (host as number) <= LAST_HOST
  );
};

/** The recorded members; none if the file is missing or damaged: their addresses are those that their MAC addresses yield. */
export function readMembers(path: string): Member[] {
  try {
    const { members } = JSON.parse(readSmall(path) ?? "{}") as { members?: unknown };
    return Array.isArray(members) ? members.filter(isMember) : [];
  } catch {
    return [];
  }
}

export function writeMembers(path: string, members: readonly Member[]): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  replaceFile(path, toJson({ network: 1, members }));
}
