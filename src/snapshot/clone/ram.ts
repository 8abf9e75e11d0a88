/** Clones of a snapshot with RAM that resume there. */
import type { RawSettings, SettingName } from "../../config/schema.ts";
import type { SettingValue } from "../../config/shell-expand.ts";
import { commandLineFor } from "../../lib/command-line.ts";
import { log } from "../../lib/log.ts";
import { formatNetwork, parseNetwork } from "../../machine/network.ts";
import { hasRam } from "../../store/manifest.ts";
import type { Mark, RunRecord } from "../../store/mark-types.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { isResumable, readSavedRun, writeState } from "../restore-ram.ts";

/** Do the clones have the RAM of the snapshot? */
export async function takesRam(
  context: Context,
  vm: Vm,
  snapshot: Snapshot | undefined,
  runs: boolean,
): Promise<boolean> {
  if (!snapshot || !hasRam(snapshot.manifest)) return false;
  if (runs) return isResumable(context, vm, snapshot);
  log.info(`${snapshot.name} has RAM, which is left out; clones that run at once have it: --run`);
  return false;
}

/** Of the clone's own guest.env, not of the machine that was saved. */
const OWN: ReadonlySet<string> = new Set<SettingName>(["UUID", "MAC", "PORT", "FORWARDS"]);

/**
 * Describes the state in the working files of a clone, as of a suspended VM.
 * @param mapped of a linked clone: the RAM stays in the snapshot
 * @returns for the mark
 */
export function writeCloneState(snapshot: Snapshot, dir: string, mapped: boolean): Partial<Mark> {
  const { run, ...mark } = writeState(snapshot, dir, mapped);
  return { ...mark, ...(run && { run: renewRun(run) }) };
}

/** Pure: the record of the saved machine, for the machine of a clone. */
export function renewRun({ settings, typed, ...run }: RunRecord): RunRecord {
  const { FORWARDS: _forwards, NETWORKS, ...additions } = typed.additions;
  return {
    ...run,
    ...(settings && { settings: renewSettings(settings, disconnect) }),
    typed: {
      ...typed,
      settings: renewSettings(typed.settings, forgetMac),
      additions: { ...additions, ...(NETWORKS && { NETWORKS: NETWORKS.map(forgetMac) }) },
    },
  };
}

function renewSettings(settings: RawSettings, renew: (network: string) => string): RawSettings {
  const { NETWORKS, PORT } = settings;
  return {
    ...Object.fromEntries(Object.entries(settings).filter(([name]) => !OWN.has(name))),
    // Without a display the machine has other devices.
    ...(PORT === "" && { PORT }),
    ...(NETWORKS !== undefined && { NETWORKS: elementsOf(NETWORKS).map(renew) }),
  };
}

const elementsOf = (value: SettingValue): string[] => [value].flat() as string[];

function forgetMac(text: string): string {
  const network = parseNetwork(text);
  return network ? formatNetwork({ ...network, mac: undefined }) : text;
}

/** The guest still has the MAC address of the original, which other machines on the network see. */
function disconnect(text: string): string {
  const network = parseNetwork(text);
  return network && isShared(network)
    ? formatNetwork({ ...network, mac: undefined, link: "down" })
    : forgetMac(text);
}

const isShared = ({ kind }: { kind: string }): boolean =>
  kind === "bridge" || kind === "tap" || kind === "net";

/** What the guests of the clones have in common with the original, whatever is renewed in them. */
export function reportShared(snapshot: Snapshot, directories: readonly string[]): void {
  const networks = readSavedRun(snapshot)?.settings?.NETWORKS;
  const cards = elementsOf(networks ?? []).flatMap((text, index) => {
    const network = parseNetwork(text);
    return network && isShared(network) && network.link === undefined ? [index + 1] : [];
  });
  const guest = directories.length > 1 ? "the guests of the clones have" : "the guest of the clone has";
  const same = `until it reboots, ${guest} the MAC addresses of the original`;
  if (cards.length === 0) return log.info(`${same}, on networks of their own`);
  const [first = "DIR"] = directories;
  const connect = cards.map((card) => commandLineFor(first, "nic", "up", String(card)));
  log.warn(
    `${same}: card ${cards.join(", ")} is disconnected; connect it afterwards: ${connect.join(" && ")}`,
  );
}
