import { badOption } from "../config/complaint.ts";
import { parseSetting } from "../config/schema.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { toJson } from "../lib/json.ts";
import { log } from "../lib/log.ts";
import { formatTable } from "../lib/table.ts";
import { newUuid } from "../lib/uuid.ts";
import { deriveMac, parseMac } from "../machine/mac.ts";
import {
  formatNetwork,
  MAX_NICS,
  explainNetwork,
  parseNetwork,
  type NetworkRequest,
} from "../machine/network.ts";
import type { Nic } from "../machine/types.ts";
import type { Context } from "../vm/context.ts";
import { requireWork, type Vm } from "../vm/find.ts";
import { readMachines } from "../vm/machines.ts";
import { describeNic, networksOf, nicsOf } from "../vm/nics.ts";
import { withVm } from "../vm/open.ts";
import { findRun, withoutTyped, type Run } from "../vm/running-settings.ts";
import { formatWhen } from "../vm/status-text.ts";
import { storeSettings } from "../vm/store-settings.ts";
import { parseAction } from "../lib/action.ts";
import { NIC_ACTIONS } from "./choices.ts";
import { noteIdleForwards } from "./live-forwards.ts";
import { changeLink, canPlug, plugNic, recordNetworks, reconcile, unplugNic } from "./live-nics.ts";

export type NicRequest =
  | { action: "list"; json: boolean }
  | { action: "add"; network: NetworkRequest }
  | { action: "remove" | "up" | "down"; number: number };

interface NicWords {
  action: string;
  card?: string | undefined;
  mac?: string | undefined;
  net?: string | undefined;
  json?: boolean | undefined;
}

/** @throws 64 */
export function parseNicRequest({ action: word, card, mac, net, json }: NicWords): NicRequest {
  const action = parseAction("nic", word, NIC_ACTIONS);
  if (action !== "list" && json) throw new VmError("usage", `nic ${action}: --json is for list`);
  if (action !== "add" && mac !== undefined) throw new VmError("usage", `nic ${action}: --mac is for add`);
  if (action !== "add" && net !== undefined) throw new VmError("usage", `nic ${action}: --net is for add`);
  if (action === "list") {
    if (card !== undefined) throw new VmError("usage", `nic list: '${card}' is one argument too many`);
    return { action, json: json === true };
  }
  if (action === "add") {
    if (card !== undefined && net !== undefined)
      throw new VmError("usage", `nic add: '${card}' and --net=${net} name two networks`);
    const text = card ?? net ?? "user";
    const network = parseNetwork(text);
    if (network === undefined || network.kind === "none")
      throw badOption("nic add", text, explainNetwork(text));
    const parsed = mac === undefined ? undefined : parseMac(mac);
    if (mac !== undefined && parsed === undefined)
      throw badOption("--mac", mac, "a MAC address such as 02:1a:2b:3c:4d:5e, not of a group");
    return { action, network: { ...network, ...(parsed !== undefined && { mac: parsed }) } };
  }
  const number = /^[1-9]$/.test(card ?? "") ? Number(card) : 0;
  if (number === 0 || number > MAX_NICS)
    throw card === undefined
      ? new VmError("usage", `nic ${action}: the card's number is missing`, {
          hint: `list the cards: ${commandLine("nic", "list")}`,
        })
      : badOption(`nic ${action}`, card, `a card's number, 1 to ${MAX_NICS}`);
  return { action, number };
}

export async function runNic(context: Context, request: NicRequest): Promise<void> {
  const own = withoutTyped(context);
  if (request.action === "list") return listNics(own, request.json);
  await withVm(own, `change the network cards`, async (vm) => {
    requireWork(vm, "change the network cards");
    const found = await findRun(own, vm);
    const run = found && (await reconcile(found));
    if (request.action === "add") return addNic(own, vm, run, request.network);
    if (request.action === "remove") return removeNic(vm, run, request.number);
    return setLink(vm, run, request.number, request.action);
  });
}

async function addNic(context: Context, vm: Vm, run: Run | undefined, wanted: NetworkRequest): Promise<void> {
  const next = networksOf(vm.settings);
  const now = run ? networksOf(run.now.settings) : [];
  const free = Array.from({ length: MAX_NICS }, (_, index) => index + 1).filter(
    (number) => !isCard(next, number) && !isCard(now, number),
  );
  // Of a running machine, the first card's place may not be hot-pluggable.
  const number = free.find((one) => run === undefined || canPlug(run, one)) ?? free[0];
  if (number === undefined)
    throw new VmError("unavailable", `cannot add a network card: a VM has at most ${MAX_NICS}`);
  const network: NetworkRequest = {
    ...wanted,
    mac: wanted.mac ?? (vm.settings.UUID === "" ? deriveMac(newUuid(), number) : undefined),
  };
  const networks = withNetwork(next, number, network);
  const added = nicsOf({ ...vm.settings, NETWORKS: networks });
  const nic = added.find((one) => one.number === number)!;
  refuseSameMac([...added, ...(run ? nicsOf(run.now.settings) : [])], nic);
  const reached = run === undefined || canReach(run, network);
  const plugged = run !== undefined && canPlug(run, number) && reached;
  if (plugged) await plugNic(context, run, withNetwork(now, number, network), number);
  storeNetworks(vm, networks);
  const why = reached ? "" : ": the jail of this run has no way there";
  const when = run !== undefined && !plugged ? `, from the next run on${why}` : "";
  log.success(`added network card ${number}, ${nic.mac ?? "with qemu's MAC address"}${when}`);
}

/** A jail without the host's network stays so, and has no tap devices. */
const canReach = ({ record: { jail } }: Run, { kind }: NetworkRequest): boolean =>
  !jail?.namespaces || (kind !== "tap" && !(kind === "user" && jail.network));

function refuseSameMac(nics: readonly Nic[], { number, mac }: Nic): void {
  const other = nics.find((one) => one.number !== number && one.mac !== undefined && one.mac === mac);
  if (other) throw new VmError("usage", `--mac: card ${other.number} has the MAC address ${mac} already`);
}

async function removeNic(vm: Vm, run: Run | undefined, number: number): Promise<void> {
  const next = networksOf(vm.settings);
  const now = run ? networksOf(run.now.settings) : [];
  requireCard("remove", number, next, now);
  const unplugged = run !== undefined && isCard(now, number) && canPlug(run, number);
  if (unplugged) await unplugNic(run, withNetwork(now, number, { kind: "none" }), number);
  storeNetworks(vm, withNetwork(next, number, { kind: "none" }));
  const later = run !== undefined && isCard(now, number) && !unplugged;
  log.success(`removed network card ${number}${later ? ", from the next run on" : ""}`);
  noteIdleForwards(vm.settings, { ...vm.settings, NETWORKS: withNetwork(next, number, { kind: "none" }) });
}

async function setLink(vm: Vm, run: Run | undefined, number: number, link: "up" | "down"): Promise<void> {
  const next = networksOf(vm.settings);
  const now = run ? networksOf(run.now.settings) : [];
  requireCard(link, number, next, now);
  const changed = (networks: readonly NetworkRequest[]): NetworkRequest[] => {
    const { link: _before, ...rest } = networks[number - 1]!;
    return withNetwork(networks, number, { ...rest, ...(link === "down" && { link }) });
  };
  if (run && isCard(now, number)) {
    await changeLink(run, number, link);
    recordNetworks(run, changed(now));
  }
  if (isCard(next, number)) storeNetworks(vm, changed(next));
  log.success(`network card ${number}: link ${link}`);
}

export const isCard = (networks: readonly NetworkRequest[], number: number): boolean =>
  (networks[number - 1]?.kind ?? "none") !== "none";

/** @throws 66 */
function requireCard(command: string, number: number, ...all: (readonly NetworkRequest[])[]): void {
  if (all.some((networks) => isCard(networks, number))) return;
  throw new VmError("noInput", `nic ${command}: there is no network card ${number}`, {
    hint: `list the cards: ${commandLine("nic", "list")}`,
  });
}

/** Pure: with another card of this number; without `none` at the end. */
function withNetwork(
  networks: readonly NetworkRequest[],
  number: number,
  network: NetworkRequest,
): NetworkRequest[] {
  const all = Array.from(
    { length: Math.max(networks.length, number) },
    (_, index): NetworkRequest => networks[index] ?? { kind: "none" },
  ).with(number - 1, network);
  const last = all.findLastIndex(({ kind }) => kind !== "none");
  return all.slice(0, Math.max(1, last + 1));
}

function storeNetworks(vm: Vm, networks: readonly NetworkRequest[]): void {
  const NETWORKS = networks.map(formatNetwork);
  const parsed = parseSetting("NETWORKS", NETWORKS);
  if (!("value" in parsed)) throw badOption("--mac", parsed.given ?? "", parsed.allowed);
  storeSettings(vm, "change the network cards", { NETWORKS });
}

async function listNics(context: Context, json: boolean): Promise<void> {
  const { running, next } = await readMachines(context);
  const numbers = Array.from({ length: MAX_NICS }, (_, index) => index + 1);
  const rows = numbers.flatMap((number) => {
    const is = (one: Nic): boolean => one.number === number;
    const [now, later] = [running?.nics.find(is), next.nics.find(is)];
    const card = now ?? later;
    if (!card) return [];
    return [
      {
        ...describeNic(context, card),
        running: running ? now !== undefined : null,
        nextRun: later !== undefined,
      },
    ];
  });
  if (json) return context.print(toJson(rows));
  const named = rows.some(({ name }) => name !== undefined);
  const table = rows.map(({ number, network, mac, link, name = "", address = "", ...when }) => [
    String(number),
    network,
    mac ?? "qemu's",
    ...(named ? [name, address] : []),
    link,
    formatWhen(when.running, when.nextRun),
  ]);
  const head = ["CARD", "NETWORK", "MAC ADDRESS", ...(named ? ["NAME", "ADDRESS"] : []), "LINK", "WHEN"];
  context.print(rows.length === 0 ? "" : formatTable([head, ...table]));
}
