import { parseSize } from "../lib/size.ts";
import type { SettingValue } from "./literal.ts";

/** A parsed value, or the allowed syntax; `meant` is the likely meaning of `given`. */
export type Parsed<T> = { value: T } | { allowed: string; given?: string; meant?: string | undefined };
export type Parser<T> = (raw: SettingValue) => Parsed<T>;

/** The value of a variable without an index in bash: an array's first element. */
export const scalarOf = (raw: SettingValue): string => (typeof raw === "string" ? raw : (raw[0] ?? ""));

/** A list as users write it: an array, or one value. Empty elements are dropped. */
export const listOf = (raw: SettingValue): string[] =>
  (typeof raw === "string" ? [raw] : raw).filter((item) => item !== "");

export const text: Parser<string> = (raw) => ({ value: scalarOf(raw) });

export const list: Parser<string[]> = (raw) => ({ value: listOf(raw) });

/** Empty and the usual words mean off, anything else on. */
export const flag: Parser<boolean> = (raw) => ({
  value: !/^(|0|n|no|off|false)$/i.test(scalarOf(raw)),
});

export function wholeNumber(min: number, max: number): Parser<number> {
  return (raw) => {
    const value = scalarOf(raw);
    return /^[0-9]{1,9}$/.test(value) && +value >= min && +value <= max
      ? { value: +value }
      : { allowed: `a whole number from ${min} to ${max}` };
  };
}

/** The same, or empty for none. */
export function optionalNumber(min: number, max: number): Parser<number | undefined> {
  const number = wholeNumber(min, max);
  return (raw) => {
    if (scalarOf(raw) === "") return { value: undefined };
    const parsed = number(raw);
    return "value" in parsed ? parsed : { allowed: `${parsed.allowed}, or empty` };
  };
}

export function oneOf<const T extends string>(...choices: T[]): Parser<T> {
  return (raw) => {
    const found = choices.find((choice) => choice === scalarOf(raw));
    return found === undefined ? { allowed: `one of ${choices.join(" ")}` } : { value: found };
  };
}

/** A text that must match a pattern. */
export function pattern(allowed: string, regexp: RegExp): Parser<string> {
  return (raw) => (regexp.test(scalarOf(raw)) ? { value: scalarOf(raw) } : { allowed });
}

/** `2G`, `512M`, or a number of MiB → MiB. */
export const memory: Parser<number> = (raw) => {
  const bytes = parseSize(scalarOf(raw), "M");
  return bytes && bytes % (1 << 20) === 0
    ? { value: bytes / (1 << 20) }
    : { allowed: "a size like 2G, 512M or a number of MiB" };
};

/** `2G,slots=2,maxmem=8G`: the part after the first comma is for qemu. */
export const optionsBehind = (raw: SettingValue): string => /,(.*)$/s.exec(scalarOf(raw))?.[1] ?? "";

/**
 * [compat] A value followed by options of qemu.
 * @param parse parses the part before the first comma
 * @param keys of these options
 */
export function withOptions<T>(parse: Parser<T>, keys: readonly string[]): Parser<T> {
  const option = new RegExp(`^(${keys.join("|")})=[0-9]+[KMGTkmgt]?$`);
  return (raw) => {
    const [head = "", ...options] = scalarOf(raw).split(",");
    const parsed = parse(head);
    if (!("value" in parsed) || options.every((one) => option.test(one))) return parsed;
    return { allowed: `${keys.map((key) => `${key}=N`).join(" or ")} after a comma` };
  };
}

/** A list whose every element has a form of its own. `separator` stands between items, too: a plain value over a default array is an array. */
export function listOfForm<T>(
  allowed: string,
  parse: (item: string) => T | undefined,
  separator?: RegExp,
  meant?: (item: string) => string | undefined,
): Parser<T[]> {
  return (raw) => {
    const items = listOf(separator ? [raw].flat().flatMap((item) => item.split(separator)) : raw);
    const value: T[] = [];
    for (const given of items) {
      const parsed = parse(given);
      if (parsed === undefined) return { allowed, given, meant: meant?.(given) };
      value.push(parsed);
    }
    return { value };
  };
}
