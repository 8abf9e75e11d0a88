import { isAbsolute, resolve } from "node:path";
import { valueText } from "../config/assignment.ts";
import { badOption } from "../config/complaint.ts";
import { parseSetting, type SettingName } from "../config/schema.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { isOn } from "../config/values.ts";
import { log } from "../lib/log.ts";
import { macroOf } from "../machine/macros.ts";
import { takesForwards } from "../machine/network.ts";
import { parseShare } from "../machine/parse.ts";
import { readMark } from "../store/mark.ts";
import type { Context } from "../vm/context.ts";
import { readVm, requireWork, type Vm } from "../vm/find.ts";
import { warnOfKeys } from "../vm/firmware.ts";
import { findRunning, refuseRunning } from "../vm/in-use.ts";
import { networksOf } from "../vm/nics.ts";
import { withVm } from "../vm/open.ts";
import { describeChange } from "../vm/change-text.ts";
import {
  findRun,
  forgetTyped,
  listChanges,
  rereadRun,
  withoutTyped,
  type NextRunChange,
  type Run,
} from "../vm/running-settings.ts";
import { storeSettings, type SettingChanges } from "../vm/store-settings.ts";
import { changeForwards, noteIdleForwards } from "./live-forwards.ts";
import { changeLink, recordNetworks } from "./live-nics.ts";
import { refuseUnfit } from "./set-fit.ts";
import { storedForm, type SetRequest, type StoredList } from "./set-request.ts";

/**
 * Stores settings in the VM's guest.env. Forwards and links of a running machine are changed at once.
 * @throws 64 for values that cannot be combined, 78 for a guest.env that cannot be changed
 */
export async function changeSettings(context: Context, request: SetRequest): Promise<void> {
  const own = withoutTyped(context);
  const change = async (vm: Vm): Promise<void> => {
    const work = requireWork(vm, "change settings");
    const changes = resolveChanges(context, vm, request);
    await refuseUnfit(own, vm, changes);
    if (changes.TEMPLATE !== undefined && isOn(changes.TEMPLATE))
      await refuseRunning(work, "make the VM a template");
    const before = vm.raw;
    const names = Object.keys(changes) as SettingName[];
    const run = await findRun(own, vm);
    // It may be refused, as for a taken port: nothing is stored then.
    if (run && changes.FORWARDS !== undefined) await applyForwards(run, changes.FORWARDS);
    storeSettings(vm, "change settings", changes);
    forgetTyped(vm, names);
    const after = await readVm(own, vm.hostdir, true, { lenient: true, work: vm.work });
    warnOfLayout(vm, after);
    if (vm.work.state === "present" && vm.settings.SECURE_BOOT !== after.settings.SECURE_BOOT)
      warnOfKeys(after.settings, vm.work, (await findRunning(vm.work)) !== undefined);
    if (run) await applyNow(run, after, names);
    const then = run && (await rereadRun(own, run));
    const later = then && {
      running: then.now.raw,
      changes: changesOf(names, listChanges(then.record, then.now, after)),
    };
    report(context, before, after, names, later);
    noteIdleForwards(vm.settings, after.settings);
  };
  await withVm(own, "change settings", change, { lenient: true });
}

/** The values to store; undefined removes one. */
function resolveChanges(context: Context, vm: Vm, { values, additions, unset }: SetRequest): SettingChanges {
  const changes: SettingChanges = { ...values };
  for (const name of unset) changes[name] = undefined;
  for (const [name, items] of Object.entries(additions) as [StoredList, string[]][]) {
    const base = [values[name] ?? vm.raw[name]].flat();
    const added = storedForm(name, [...base, ...items]);
    const parsed = parseSetting(name, added);
    if (!("value" in parsed)) throw badOption(name, parsed.given ?? items.join(" "), parsed.allowed);
    changes[name] = added;
  }
  if (changes.SHARES !== undefined)
    changes.SHARES = [changes.SHARES].flat().map((item) => absoluteShare(context, item));
  return changes;
}

/** As `create` stores it: relative to the current directory. */
function absoluteShare({ cwd }: Context, text: string): string {
  const share = parseShare(text);
  if (!share || macroOf(share.path) || isAbsolute(share.path)) return text;
  return `${share.tag}:${share.writable ? "rw:" : ""}${resolve(cwd, share.path)}`;
}

/** Changes that the guest's system may not cope with. */
function warnOfLayout({ settings: before }: Vm, { settings: after }: Vm): void {
  if (before.UEFI !== after.UEFI)
    log.warn(
      `a system that was installed for ${before.UEFI ? "UEFI" : "BIOS"} does not boot by ${after.UEFI ? "UEFI" : "BIOS"}`,
    );
  if (before.QEMUARCH !== after.QEMUARCH)
    log.warn(`a system that was installed for ${before.QEMUARCH} may not boot on ${after.QEMUARCH}`);
  if ((before.LAYOUT === 0) !== (after.LAYOUT === 0))
    log.warn(
      "devices move to other places: names of network interfaces and paths of disks change in the guest",
    );
  if (before.MAC !== after.MAC)
    log.warn("the first card's MAC address changes: names of network interfaces may change in the guest");
}

/** Changes the forwards of the running machine, if it has a card for them. */
async function applyForwards(run: Run, value: SettingValue): Promise<void> {
  const parsed = parseSetting("FORWARDS", value) as { value: string[] };
  if (networksOf(run.now.settings).find(takesForwards)?.kind === "user")
    await changeForwards(run, parsed.value);
}

/** Changes the links of the running machine, and forwards that were unset. */
async function applyNow(run: Run, after: Vm, names: readonly SettingName[]): Promise<void> {
  if (names.includes("FORWARDS")) {
    // As it is after `applyForwards`.
    const record = readMark(run.work.dir)?.run ?? run.record;
    await applyForwards({ ...run, record }, after.raw.FORWARDS);
  }
  if (!names.includes("NETWORKS")) return;
  const wanted = networksOf(after.settings);
  const now = networksOf(run.now.settings);
  const linked = now.map((network, index) => {
    const other = wanted[index];
    if (!other || other.kind !== network.kind || other.link === network.link) return network;
    return { ...network, link: other.link };
  });
  for (const [index, { link }] of linked.entries())
    if (link !== now[index]!.link) await changeLink(run, index + 1, link ?? "up");
  recordNetworks(run, linked);
}

/** @param later settings of a running machine, and what it does not have yet */
function report(
  context: Context,
  before: Vm["raw"],
  after: Vm,
  names: readonly SettingName[],
  later: { running: Vm["raw"]; changes: readonly NextRunChange[] } | undefined,
): void {
  const changed = names.filter((name) => valueText(before[name]) !== valueText(after.raw[name]));
  context.print(
    changed.map((name) => `${name}: ${valueText(before[name])} -> ${valueText(after.raw[name])}\n`).join(""),
  );
  if (changed.length === 0) log.info("no changes: the settings have these values already");
  if (!later || later.changes.length === 0) return;
  // By name only if it has just been printed.
  const texts = later.changes.map((change) => {
    const { setting } = change;
    const printed =
      changed.includes(setting) && valueText(before[setting]) === valueText(later.running[setting]);
    return printed ? setting : describeChange(change);
  });
  log.info(`the VM is running; from the next run on: ${[...new Set(texts)].join("; ")}`);
}

/** Those of these settings. USENETDEV is the first card of NETWORKS. */
const changesOf = (names: readonly SettingName[], changes: readonly NextRunChange[]): NextRunChange[] =>
  changes.filter(
    ({ setting }) =>
      names.includes(setting) || (setting === "NETWORKS" && names.some((name) => name === "USENETDEV")),
  );
