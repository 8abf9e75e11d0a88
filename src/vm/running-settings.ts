import { MACHINE_SETTINGS, parseSetting, type RawSettings, type SettingName } from "../config/schema.ts";
import { optionsBehind } from "../config/values.ts";
import type { RunRecord } from "../store/mark-types.ts";
import type { Options } from "./context.ts";
import type { Vm } from "./find.ts";
import { effectiveForwards } from "./nics.ts";

/** Options with which the settings are those of the running machine. */
export const optionsOfRun = ({ settings, typed }: RunRecord): Pick<Options, "settings" | "additions"> =>
  settings === undefined
    ? typed
    : { settings: { ...typed.settings, ...settings }, additions: { IMAGES: typed.additions.IMAGES ?? [] } };

/** Pure: settings that the next run has and the running machine has not. @param now with the settings of the run */
export function findChanges(run: RunRecord, now: Vm, next: Vm): RawSettings {
  const meaning = (vm: Vm, name: SettingName): string =>
    JSON.stringify([parseSetting(name, vm.raw[name]), optionsBehind(vm.raw[name])]);
  const changes = MACHINE_SETTINGS.filter((name) => meaning(now, name) !== meaning(next, name));
  const forwards = effectiveForwards(next.settings);
  return {
    ...Object.fromEntries(changes.map((name) => [name, next.raw[name]])),
    ...(run.forwards.join() !== forwards.join() && { FORWARDS: forwards.join(",") }),
  };
}
