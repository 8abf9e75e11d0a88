import { machineSettings, parseSetting, type RawSettings, type SettingName } from "../config/schema.ts";
import { optionsBehind } from "../config/values.ts";
import { log } from "../lib/log.ts";
import { isExitUnrecorded, updateRun } from "../store/mark.ts";
import type { RunRecord } from "../store/mark-types.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context, Options } from "./context.ts";
import { openVm, type Vm } from "./find.ts";
import { findRunning } from "./in-use.ts";
import { effectiveForwards } from "./nics.ts";

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

/**
 * The machine that runs now; undefined if none does, or if it was not started by this program. Called under the VM's lock,
 * so that it is no job's.
 */
export async function findRun(context: Context, { work }: Vm): Promise<Run | undefined> {
  if (work.state !== "present" || (await findRunning(work)) === undefined) return undefined;
  const record = isExitUnrecorded(work.mark) ? work.mark.run : undefined;
  if (record?.settings === undefined) {
    log.warn("the running machine is not changed: it was started by hand, or by an earlier version");
    return undefined;
  }
  const { hostdir } = context.options;
  const now = await openVm({ ...context, options: { ...optionsOfRun(record), hostdir } });
  return { work, record, now };
}

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
    ...(run.forwards.join() !== forwards.join() && { FORWARDS: forwards.join(",") }),
  };
}
