import { VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";
import { ProcessError } from "../process/exec.ts";
import { receiveFrom } from "../process/receive.ts";
import { selfCommand } from "../process/self.ts";
import { lockDirectory } from "../store/lock.ts";
import {
  prefixOf,
  readMembers,
  recordPath,
  withMember,
  writeMembers,
  type Joining,
  type Member,
  type RecordPlace,
} from "./addresses.ts";
import { isAlive, openLan, reloadLan, type Lan } from "./lan.ts";
import { makeNetworkDirectory } from "./place.ts";
import { BRIDGE, TAP_WORD } from "./tap.ts";

const LOCK_MS = 60_000;

export interface JoinRequest extends Joining {
  network: string;
  outside: "on" | "off";
  /** UUID of the VM in a directory, if there is one. */
  readUuid: (directory: string) => string | undefined;
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
 * @throws 69 if a program is missing, 74 if it does not start, 75 if it runs with another access to the outside
 */
export async function joinNetwork(place: RecordPlace, request: JoinRequest): Promise<Joined> {
  const { network } = request;
  const directory = makeNetworkDirectory(place, network);
  const lan = await enterNetwork(directory, recordPath(place.cacheDirectory ?? directory, network), request);
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

/** Starts the network if it does not run, and records the card as a member. A card that is refused leaves no record. */
export async function enterNetwork(
  directory: string,
  record: string,
  { network, outside, readUuid, ...joining }: JoinRequest,
): Promise<Lan> {
  using _lock = await lockDirectory(directory, {
    command: `join the network ${network}`,
    waitMs: LOCK_MS,
    busy: "another VM is joining it",
  });
  const known = readMembers(record);
  const running = isAlive(directory);
  const exists = ({ vm }: Member): boolean =>
    vm === undefined ? running : readUuid(vm.directory) === vm.uuid;
  const members = withMember(known, joining, { running, exists });
  if (members === undefined)
    throw new VmError("unavailable", `the network ${network} has no free address`, {
      hint: `forget its former members: rm ${shellQuote(record)}`,
    });
  const lan = await openLan({ name: network, directory, prefix: prefixOf(network), outside, members });
  try {
    if (!Bun.deepEquals(known, members)) writeMembers(record, members);
    if (running) await reloadLan(directory, lan.pid, { before: known, after: members });
    return lan;
  } catch (error) {
    lan[Symbol.dispose]();
    throw error;
  }
}
