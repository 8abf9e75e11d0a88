import { createDefu } from "defu";
import type { RawSettings } from "./schema.ts";

/** A list replaces a list of an earlier layer; defu alone would append. */
const overlay = createDefu((object, key, value) => {
  object[key] = value;
  return true;
});

/** Merges settings by name, the first argument taking precedence. Empty values are kept: they mean "off". */
export const mergeSettings = <T extends RawSettings>(stronger: RawSettings, weaker: T): T =>
  overlay(stronger, weaker) as T;
