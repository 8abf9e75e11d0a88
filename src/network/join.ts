import { VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";
import { ProcessError } from "../process/exec.ts";
import { receiveFrom } from "../process/receive.ts";
import { selfCommand } from "../process/self.ts";
import { lockDirectory } from "../store/lock.ts";
import { findMember, prefixOf, readMembers, recordPath, writeMembers } from "./addresses.ts";
import { openLan, type Lan } from "./lan.ts";
import { makeNetworkDirectory, type RuntimePlace } from "./place.ts";
import { BRIDGE, TAP_WORD } from "./tap.ts";

const LOCK_MS = 60_000;

export interface JoinRequest {
  network: string;
  outside: "on" | "off";
  mac: string;
  /** A DNS label. */
  hostName: string;
}

/** A card's connection to a network. */
export interface Joined extends Disposable {
  /** A tap device on its bridge. */
  fd: number;
  /** The pipe that qemu holds open as a member. Until disposal, this process holds it. */
  lifeline: string;
}

/**
 * Connects a card to a network among this user's VMs, which the first member starts.
 * @param cacheDirectory keeps the addresses; absent: they are kept while the network runs
 * @throws 69 if a program is missing, 74 if it does not start, 75 if it runs with another access to the outside
 */
export async function joinNetwork(
  place: RuntimePlace & { cacheDirectory: string | undefined },
  { network, outside, mac, hostName }: JoinRequest,
): Promise<Joined> {
  const directory = makeNetworkDirectory(place, network);
  const lan = await enter(directory, recordPath(place.cacheDirectory ?? directory, network), {
    network,
    outside,
    mac,
    hostName,
  });
  try {
    const namespace = [
      "nsenter",
      "--target",
      String(lan.pid),
      "--user",
      "--preserve-credentials",
      "--net",
      "--",
    ];
    const received = await receiveFrom([...namespace, ...selfCommand(), TAP_WORD, BRIDGE]);
    if (received.fd === undefined)
      throw new ProcessError(`cannot join the network ${network}`, received.result);
    return { fd: received.fd, lifeline: lan.lifeline, [Symbol.dispose]: () => lan[Symbol.dispose]() };
  } catch (error) {
    lan[Symbol.dispose]();
    throw error;
  }
}

/** Records the card as a member, and starts the network if it does not run. */
async function enter(
  directory: string,
  record: string,
  { network, outside, mac, hostName }: JoinRequest,
): Promise<Lan> {
  using _lock = await lockDirectory(directory, {
    command: `join the network ${network}`,
    waitMs: LOCK_MS,
    busy: "another VM is joining it",
  });
  const known = readMembers(record);
  const member = findMember(known, mac, hostName);
  if (member === undefined)
    throw new VmError("unavailable", `the network ${network} has no free address`, {
      hint: `forget its former members: rm ${shellQuote(record)}`,
    });
  const members = [...known.filter((one) => one.mac !== mac), member];
  if (!Bun.deepEquals(known, members)) writeMembers(record, members);
  return await openLan({ name: network, directory, prefix: prefixOf(network), outside, members });
}
