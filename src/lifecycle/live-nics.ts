import { join } from "node:path";
import { listDevices } from "../live/attached.ts";
import { commandLine } from "../lib/command-line.ts";
import { formatNetwork, takesForwards, type NetworkRequest } from "../machine/network.ts";
import type { Nic } from "../machine/types.ts";
import {
  fdName,
  letGoCommand,
  linkCommand,
  nicDevice,
  nicOfDevice,
  plugCommands,
  removeNetdevCommand,
} from "../qemu/devices/nic.ts";
import type { Placed } from "../qemu/layout.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { QmpCommand } from "../qmp/commands.ts";
import { QmpError } from "../qmp/errors.ts";
import { sendNamedDescriptor } from "../qmp/send-descriptor.ts";
import { WORK } from "../store/layout.ts";
import { updateRun } from "../store/mark.ts";
import { connectCards, refuseSameTap } from "../vm/cards.ts";
import type { Context } from "../vm/context.ts";
import { networksOf, resolveNics } from "../vm/nics.ts";
import { nameForQemu } from "../live/lend.ts";
import { withMonitor } from "../vm/running.ts";
import { recordChanges, type Run } from "../vm/running-settings.ts";
import { unplugDevice } from "./unplug.ts";

/** Can a running machine get and lose this card? The first one's place is on the root bus, without hot plug on PCI Express. */
export const canPlug = ({ now }: Run, number: number): boolean => number > 1 && now.settings.LAYOUT > 0;

const placedOf = ({ now: { settings } }: Run): Placed => ({
  arch: settings.QEMUARCH,
  firmware: settings.UEFI ? {} : undefined,
  kernel: undefined,
  resumed: false,
  layout: settings.LAYOUT,
});

/** Numbers of the cards that qemu has. */
async function readCards(qmp: QmpClient): Promise<Set<number>> {
  return new Set([...(await listDevices(qmp))].flatMap((id) => nicOfDevice(id) ?? []));
}

/** Records the networks of the running machine. */
export function recordNetworks(run: Run, networks: readonly NetworkRequest[]): void {
  recordChanges(run, { NETWORKS: networks.map(formatNetwork) });
}

/**
 * Corrects the record after a guest released a card later than the command that waited for it, or a command was killed.
 * @returns the run as it is now
 */
export async function reconcile(run: Run): Promise<Run> {
  const before = networksOf(run.now.settings);
  const networks = await withMonitor(run.work, async (qmp) => {
    const cards = await readCards(qmp);
    const isGone = ({ kind }: NetworkRequest, index: number): boolean =>
      kind !== "none" && canPlug(run, index + 1) && !cards.has(index + 1);
    for (const [index, network] of before.entries())
      if (isGone(network, index)) await dropNetdev(qmp, index + 1);
    return before.map((network, index) => (isGone(network, index) ? { kind: "none" as const } : network));
  });
  if (networks.every((network, index) => network === before[index])) return run;
  recordNetworks(run, networks);
  const settings = { ...run.record.settings, NETWORKS: networks.map(formatNetwork) };
  const now = { ...run.now, settings: { ...run.now.settings, NETWORKS: networks } };
  return { ...run, record: { ...run.record, settings }, now };
}

const executeAll = async (qmp: QmpClient, commands: readonly QmpCommand[]): Promise<void> => {
  // All replies are awaited: none may be rejected without a handler.
  const replies = await Promise.allSettled(qmp.executeBatch(commands));
  const failed = replies.find((reply) => reply.status === "rejected");
  if (failed) throw failed.reason;
};

/** Removes what belongs to a card that is not there, which a killed command or a late release left. */
async function dropNetdev(qmp: QmpClient, number: number): Promise<void> {
  for (const command of [removeNetdevCommand(number), letGoCommand(number)])
    await executeAll(qmp, [command]).catch((error: unknown) => {
      if (!(error instanceof QmpError)) throw error;
    });
}

/** Adds a card to the running machine, and records it. @param networks with that card */
export async function plugNic(
  context: Context,
  run: Run,
  networks: NetworkRequest[],
  number: number,
): Promise<void> {
  const FORWARDS = run.record.forwards;
  const nics = resolveNics(context, { ...run.now.settings, NETWORKS: networks, FORWARDS });
  refuseSameTap(nics);
  const nic = nics.find((one) => one.number === number)!;
  const cards = await connectCards(context, run.work.dir, run.now.settings.GUESTNAME, [nic]);
  try {
    for (const fd of cards.fds) await sendNamedDescriptor(join(run.work.dir, WORK.qmp), fdName(number), fd);
    await plug(run, nic);
  } catch (error) {
    await cards.withdraw();
    throw error;
  }
  cards.handOver();
  recordNetworks(run, networks);
}

async function plug(run: Run, nic: Nic): Promise<void> {
  const { number } = nic;
  await withMonitor(run.work, async (qmp) => {
    // A killed command has added it already.
    if ((await readCards(qmp)).has(number)) return;
    await dropNetdev(qmp, number);
    try {
      const { lifeline } = nic;
      const held = lifeline && { lifeline: await nameForQemu(run.work.dir, lifeline, "write") };
      await executeAll(qmp, plugCommands(placedOf(run), { ...nic, ...held }));
    } catch (error) {
      await dropNetdev(qmp, number);
      throw error;
    }
  });
}

/**
 * Removes a card from the running machine, which the guest must release, and records that.
 * @throws 124 if it does not in time, 75 if it refuses or is paused
 */
export async function unplugNic(run: Run, networks: NetworkRequest[], number: number): Promise<void> {
  await withMonitor(run.work, async (qmp) => {
    if ((await readCards(qmp)).has(number))
      await unplugDevice(qmp, nicDevice(number), {
        change: `remove card ${number}`,
        hint: `remove it while the VM is off: ${commandLine("stop")} && ${commandLine("nic", "remove", String(number))}`,
      });
    await dropNetdev(qmp, number);
  });
  recordNetworks(run, networks);
  const owner = networksOf(run.now.settings).findIndex(takesForwards) + 1;
  if (owner === number) updateRun(run.work.dir, { forwards: [] });
}

export const changeLink = (run: Run, number: number, link: "up" | "down"): Promise<void> =>
  withMonitor(run.work, (qmp) => executeAll(qmp, [linkCommand(number, link)]));
