import type { Lookup, SettingValue } from "./shell-expand.ts";

type Variables = Readonly<Record<string, SettingValue | undefined>>;

/** Looks a variable up in several places, first found first; names such as `constructor` are no variables. */
export function lookupIn(...places: readonly Variables[]): Lookup {
  return (name) => places.find((place) => Object.hasOwn(place, name) && place[name] !== undefined)?.[name];
}
