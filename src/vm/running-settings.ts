import { valueText } from "../config/assignment.ts";
import {
  ADDED_LISTS,
  machineSettings,
  parseSetting,
  type RawSettings,
  type SettingName,
} from "../config/schema.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { optionsBehind } from "../config/values.ts";
import { log } from "../lib/log.ts";
import { formatNetwork } from "../machine/network.ts";
import { isExitUnrecorded, readMark, updateRun } from "../store/mark.ts";
import type { RunRecord } from "../store/mark-types.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context, Options } from "./context.ts";
import { readVm, type Vm } from "./find.ts";
import { findRunning } from "./in-use.ts";
import { effectiveForwards, networksOf } from "./nics.ts";

/** The machine that runs now. */
export interface Run {
  work: Workdir;
  record: RunRecord;
  /** The VM with the settings of the running machine. */
  now: Vm;
}

/** The context without the settings of the command line. */
export const withoutTyped = (context: Context): Context => ({
  ...context,
  options: { settings: {}, additions: {}, hostdir: context.options.hostdir },
});

/** Options with which the settings are those of the running machine. */
export const optionsOfRun = ({ settings, typed }: RunRecord): Pick<Options, "settings" | "additions"> =>
  settings === undefined
    ? typed
    : { settings: { ...typed.settings, ...settings }, additions: { IMAGES: typed.additions.IMAGES ?? [] } };

/** The options of an earlier run again, and those of this command line. */
export function optionsAgain({ settings, additions }: RunRecord["typed"], options: Options): Options {
  const lists = ADDED_LISTS.flatMap((name) => {
    const before = name === "IMAGES" && options.imagesCleared ? [] : (additions[name] ?? []);
    const all = [...new Set([...before, ...(options.additions[name] ?? [])])];
    return all.length === 0 ? [] : [[name, all] as const];
  });
  return {
    ...options,
    settings: { ...settings, ...options.settings },
    additions: Object.fromEntries(lists),
  };
}

/**
 * The machine that runs now; undefined if none does, or if it was not started by this program. Called under the VM's lock,
 * so that it is no job's.
 */
export async function findRun(context: Context, { hostdir, work }: Vm): Promise<Run | undefined> {
  if (work.state !== "present" || (await findRunning(work)) === undefined) return undefined;
  const record = isExitUnrecorded(work.mark) ? work.mark.run : undefined;
  if (record?.settings === undefined) {
    log.warn("the running machine is not changed: it was started by hand, or by an earlier version");
    return undefined;
  }
  return openRun(context, hostdir, work, record);
}

async function openRun(context: Context, hostdir: string, work: Workdir, record: RunRecord): Promise<Run> {
  const own = { ...context, options: { ...optionsOfRun(record), hostdir } };
  // Of an invalid guest.env, which `set` may be correcting, the recorded settings are valid.
  const now = await readVm(own, hostdir, true, { lenient: true, work });
  return { work, record, now };
}

/** The machine that runs now, after changes of its record. */
export const rereadRun = (context: Context, { work, record, now: { hostdir } }: Run): Promise<Run> =>
  openRun(context, hostdir, work, readMark(work.dir)?.run ?? record);

/** Records changed settings of the running machine. */
export const recordChanges = ({ work, record }: Run, changes: RawSettings): void =>
  updateRun(work.dir, { settings: { ...record.settings, ...changes } });

/** `restart` uses the options of the last start again, but for these settings, which have been changed since. */
export function forgetTyped({ work }: Vm, names: readonly string[]): void {
  const typed = work.state === "present" ? work.mark.run?.typed : undefined;
  if (work.state !== "present" || typed === undefined) return;
  const kept = <T extends object>(values: T): T =>
    Object.fromEntries(Object.entries(values).filter(([name]) => !names.includes(name))) as T;
  updateRun(work.dir, {
    typed: { ...typed, settings: kept(typed.settings), additions: kept(typed.additions) },
  });
}

const meaning = ({ raw }: Vm, name: SettingName): string =>
  JSON.stringify([parseSetting(name, raw[name]), optionsBehind(raw[name])]);

/** Pure: settings that the next run has and the running machine has not. @param now with the settings of the run */
export function findChanges(run: RunRecord, now: Vm, next: Vm): RawSettings {
  const changes = machineSettings().filter((name) => meaning(now, name) !== meaning(next, name));
  const forwards = effectiveForwards(next.settings);
  return {
    ...Object.fromEntries(changes.map((name) => [name, next.raw[name]])),
    ...(run.forwards.toSorted().join() !== forwards.toSorted().join() && { FORWARDS: forwards.join(",") }),
  };
}

/** A difference between the running machine and the next run: a setting, or an element of a list. */
export interface NextRunChange {
  setting: SettingName;
  /** Of NETWORKS: the card's number. */
  card?: number;
  /** As written in a settings file; null: absent. */
  running: string | null;
  nextRun: string | null;
}

/** Pure: the same, element by element. */
export function listChanges(run: RunRecord, now: Vm, next: Vm): NextRunChange[] {
  const { NETWORKS, USENETDEV, FORWARDS, ...others } = findChanges(run, now, next);
  return [
    ...(Object.keys(others) as SettingName[]).flatMap((setting) =>
      compareValues(setting, now.raw[setting], next.raw[setting]),
    ),
    ...((NETWORKS ?? USENETDEV) === undefined ? [] : compareCards(now, next)),
    ...(FORWARDS === undefined
      ? []
      : compareLists("FORWARDS", run.forwards, effectiveForwards(next.settings))),
  ];
}

function compareValues(setting: SettingName, running: SettingValue, nextRun: SettingValue): NextRunChange[] {
  const elements =
    typeof running === "string" && typeof nextRun === "string"
      ? []
      : compareLists(setting, [running].flat(), [nextRun].flat());
  // In another order, too.
  return elements.length > 0
    ? elements
    : [{ setting, running: valueText(running), nextRun: valueText(nextRun) }];
}

const compareLists = (
  setting: SettingName,
  running: readonly string[],
  nextRun: readonly string[],
): NextRunChange[] => [
  ...running
    .filter((item) => !nextRun.includes(item))
    .map((item) => ({ setting, running: item, nextRun: null })),
  ...nextRun
    .filter((item) => !running.includes(item))
    .map((item) => ({ setting, running: null, nextRun: item })),
];

function compareCards(now: Vm, next: Vm): NextRunChange[] {
  const [running, later] = [now, next].map(({ settings }) =>
    networksOf(settings).map((network) => (network.kind === "none" ? null : formatNetwork(network))),
  ) as [(string | null)[], (string | null)[]];
  return Array.from({ length: Math.max(running.length, later.length) }, (_, index): NextRunChange => {
    return {
      setting: "NETWORKS",
      card: index + 1,
      running: running[index] ?? null,
      nextRun: later[index] ?? null,
    };
  }).filter((change) => change.running !== change.nextRun);
}
