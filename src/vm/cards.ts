import { closeSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { commandLine } from "../lib/command-line.ts";
import { hostNameOf } from "../machine/cloud-config.ts";
import type { Nic } from "../machine/types.ts";
import { usesDescriptor } from "../qemu/devices/nic.ts";
import { findDown } from "../qemu/link.ts";
import { busyTap, requireTap } from "../qemu/tap.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "./context.ts";
import { findHostdir } from "./find.ts";
import { readIdentity } from "./identity.ts";

/** Connections of network cards, opened for a qemu that gets them. */
export interface CardConnections {
  /** One for each card that uses one, in their order. */
  fds: number[];
  /** qemu has them: closes those of this process. */
  handOver(): void;
  /** There is no qemu: ends what was started for them. */
  withdraw(): Promise<void>;
}

/**
 * Opens what cards are connected to, as far as qemu does not do it itself.
 * @param directory WORKDIR
 * @throws 64, 69, 74 or 75 with what to do
 */
export async function connectCards(
  context: Context,
  directory: string,
  guestName: string,
  nics: readonly Nic[],
): Promise<CardConnections> {
  const opened: OpenCard[] = [];
  const withdraw = async (): Promise<void> => {
    for (const one of opened) await one.withdraw();
  };
  refuseSameTap(nics);
  try {
    for (const nic of nics) {
      if (nic.network.kind === "tap") requireTap(nic.network.name!, directory);
      if (usesDescriptor(nic)) opened.push(await connectCard(context, directory, guestName, nic));
      warnOfDown(nic);
    }
  } catch (error) {
    await withdraw();
    throw error;
  }
  const handOver = (): void => opened.forEach((one) => one.handOver());
  return { fds: opened.map(({ fd }) => fd), handOver, withdraw };
}

/** The connection of one card. */
interface OpenCard {
  fd: number;
  handOver(): void;
  withdraw(): Promise<void> | void;
}

async function connectCard(
  context: Context,
  directory: string,
  guestName: string,
  nic: Nic,
): Promise<OpenCard> {
  const { kind, name = "", outside = "on" } = nic.network;
  if (kind === "passt") {
    const { startPasst } = await import("../qemu/passt.ts");
    const logPath = join(directory, WORK.companionLog);
    const { fd, release, end } = await startPasst(directory, nic.number, nic.forwards, logPath);
    return { fd, handOver: () => (closeSync(fd), release()), withdraw: end };
  }
  if (kind === "bridge") {
    const fd = await (await import("../qemu/bridge.ts")).openBridge(name);
    const close = (): void => closeSync(fd);
    return { fd, handOver: close, withdraw: close };
  }
  const { joinNetwork } = await import("../network/join.ts");
  const hostName = hostNameOf(guestName).split(".")[0]!;
  const directoryOfVm = findHostdir(context);
  const { uuid } = readIdentity(directoryOfVm);
  const joined = await joinNetwork(context, {
    network: name,
    outside,
    mac: macFor(nic),
    hostName,
    vm: uuid === undefined ? undefined : { directory: directoryOfVm, uuid },
    readUuid: (hostdir) => readIdentity(hostdir).uuid,
  });
  const leave = (): void => (closeSync(joined.fd), joined[Symbol.dispose]());
  return { fd: joined.fd, handOver: leave, withdraw: leave };
}

/** @throws 75 if two cards are on the same tap device */
export function refuseSameTap(nics: readonly Nic[]): void {
  const taps = nics.filter(({ network }) => network.kind === "tap");
  for (const [index, { network }] of taps.entries()) {
    const other = taps.slice(0, index).find((one) => one.network.name === network.name);
    if (other) throw busyTap(network.name!, `network card ${other.number}`);
  }
}

/** A bridge or tap device that is down passes nothing on. */
function warnOfDown({ network: { kind, name = "" } }: Nic): void {
  if (kind !== "bridge" && kind !== "tap") return;
  const problem = findDown(kind === "tap" ? "tap device" : "bridge", name);
  if (problem) log.warn(`${problem.text}; set it up: ${problem.fix}`);
}

/** On a network with other machines, qemu's default address would be that of several. */
function macFor({ number, mac }: Nic): string {
  if (mac !== undefined) return mac;
  throw new VmError(
    "config",
    `network card ${number} has no MAC address of its own, which its network needs`,
    {
      hint: `give the VM a UUID: ${commandLine("identity", "--new")}`,
    },
  );
}
