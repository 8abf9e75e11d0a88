import type { Lookup, SettingValue } from "./shell-expand.ts";

type Variables = Readonly<Record<string, SettingValue | undefined>>;

/** Looks a variable up in several tables in order; names such as `constructor` are not variables. */
export function lookupIn(...places: readonly Variables[]): Lookup {
  return (name) => places.find((place) => Object.hasOwn(place, name) && place[name] !== undefined)?.[name];
}
