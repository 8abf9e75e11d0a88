import { createDefu } from "defu";
import type { RawSettings } from "./schema.ts";

/** Between layers a list replaces a list; defu alone would append. */
const overlay = createDefu((object, key, value) => {
  object[key] = value;
  return true;
});

/** Lays stronger settings over weaker ones, name by name. Empty values count: they mean "off". */
export const mergeSettings = <T extends RawSettings>(stronger: RawSettings, weaker: T): T =>
  overlay(stronger, weaker) as T;
