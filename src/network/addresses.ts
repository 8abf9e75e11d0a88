import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { sha256 } from "../lib/crypto.ts";
import { readSmall } from "../lib/read-file.ts";
import { toJson } from "../lib/json.ts";
import { replaceFile } from "../store/files.ts";
import { networksDirectory, type RuntimePlace } from "./place.ts";

/** A card on a network among VMs, with its fixed address. */
export interface Member {
  mac: string;
  /** A DNS label. */
  name: string;
  /** Last byte of its address. */
  host: number;
  /** Its VM; absent: recorded by an earlier version, or a VM without a UUID. */
  vm?: VmPlace;
}

/** Where a VM is. */
export interface VmPlace {
  /** HOSTDIR. */
  directory: string;
  uuid: string;
}

/** Last bytes of addresses that VMs get; those below are the network's own. */
const FIRST_HOST = 16;
const LAST_HOST = 254;
/** With more members, those whose VM is gone are removed. */
const MANY_MEMBERS = 200;

const number = (text: string): number => Number.parseInt(sha256(text).slice(0, 12), 16);

/** Pure: the first three bytes of a network's addresses, by its name: `10.77.3`. Not slirp's 10.0. */
export function prefixOf(network: string): string {
  const hash = number(`network ${network}`);
  return `10.${1 + (hash % 255)}.${Math.floor(hash / 255) % 256}`;
}

/** What decides whether a member keeps its name. */
export interface Keeping {
  /** Does the network run? Else no VM is on it. */
  running: boolean;
  /** Does a member's VM exist? */
  exists: (member: Member) => boolean;
}

/** A card that joins. */
export interface Joining {
  mac: string;
  /** A DNS label. */
  hostName: string;
  vm?: VmPlace | undefined;
}

/** The name with the first number that makes it unlike those of the members. */
function numbered(members: readonly Member[], wanted: string): string {
  const isTaken = (name: string): boolean => members.some((member) => member.name === name);
  let name = wanted;
  for (let count = 2; isTaken(name); count++) name = `${wanted.slice(0, 60)}-${count}`;
  return name;
}

/**
 * Pure: the members with a card that joins, which is the last one. It has the address that is recorded for its MAC address,
 * else the one that this yields, or the next free one; and its VM's name. Another member of that name keeps it while the
 * network runs, if its VM exists: then this one's name has a number, else the other's.
 * @returns undefined if all addresses are taken
 */
export function withMember(
  members: readonly Member[],
  { mac, hostName, vm }: Joining,
  { running, exists }: Keeping,
): Member[] | undefined {
  const others = members.filter(
    (member) => member.mac !== mac && (members.length <= MANY_MEMBERS || exists(member)),
  );
  const holder = others.find(({ name }) => name === hostName);
  const isHeld = holder !== undefined && running && exists(holder);
  const name = isHeld ? numbered(others, hostName) : hostName;
  const host = members.find((member) => member.mac === mac)?.host ?? freeHost(others, mac);
  if (host === undefined) return undefined;
  const kept = others.map((member) =>
    member === holder && !isHeld ? { ...member, name: numbered(others, hostName) } : member,
  );
  return [...kept, { mac, name, host, ...(vm && { vm }) }];
}

function freeHost(members: readonly Member[], mac: string): number | undefined {
  const taken = new Set(members.map(({ host }) => host));
  const count = LAST_HOST - FIRST_HOST + 1;
  const first = number(`address ${mac}`) % count;
  for (let step = 0; step < count; step++) {
    const host = FIRST_HOST + ((first + step) % count);
    if (!taken.has(host)) return host;
  }
  return undefined;
}

/** Where the members of a network are recorded, so that their addresses stay. */
export const recordPath = (cacheDirectory: string, network: string): string =>
  join(cacheDirectory, "networks", `${network}.json`);

/** @param cacheDirectory keeps the record; absent: it is kept while the network runs */
export type RecordPlace = RuntimePlace & { cacheDirectory: string | undefined };

/** Name and address of a card, where they are recorded: the card has joined its network before. */
export function findAddress(
  place: RecordPlace,
  network: string,
  mac: string | undefined,
): { name: string; address: string } | undefined {
  const directory = place.cacheDirectory ?? join(networksDirectory(place), network);
  const member = readMembers(recordPath(directory, network)).find((one) => one.mac === mac);
  return member && { name: member.name, address: `${prefixOf(network)}.${member.host}` };
}

const isMember = (item: unknown): item is Member => {
  const { mac, name, host, vm } = (item ?? {}) as Record<string, unknown>;
  return (
    typeof mac === "string" &&
    /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac) &&
    typeof name === "string" &&
    /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(name) &&
    Number.isInteger(host) &&
    (host as number) >= FIRST_HOST &&
    (host as number) <= LAST_HOST &&
    (vm === undefined || isVmPlace(vm))
  );
};

const isVmPlace = (item: unknown): boolean => {
  const { directory, uuid } = (item ?? {}) as Record<string, unknown>;
  return typeof directory === "string" && typeof uuid === "string";
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
