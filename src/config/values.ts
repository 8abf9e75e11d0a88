import { parseSize } from "../lib/size.ts";
import type { SettingValue } from "./shell-expand.ts";

/** A parsed value, or the allowed syntax; `meant` is the likely meaning of `given`. */
export type Parsed<T> = { value: T } | { allowed: string; given?: string; meant?: string | undefined };

/** What the values of a setting are like, where completion or help shows them in a way of their own. */
export type ParserKind =
  | "text"
  | "flag"
  | "disks"
  | "images"
  | "forwards"
  | "networks"
  | "shares"
  | "profile";

/** What a parser takes, for help, the manual and completion. */
export interface ParserFacts {
  kind: ParserKind;
  /** In the words of an error message; absent where anything is allowed. */
  allowed?: string;
  /** All values, or the usual ones of a flag. */
  choices?: readonly string[];
}

export type Parser<T> = ((raw: SettingValue) => Parsed<T>) & Readonly<ParserFacts>;

/** A parser with what it takes. */
export const parser = <T>(facts: Partial<ParserFacts>, parse: (raw: SettingValue) => Parsed<T>): Parser<T> =>
  Object.assign(parse, { kind: "text" as const, ...facts });

/** The value of a variable without an index in bash: an array's first element. */
export const scalarOf = (raw: SettingValue): string => (typeof raw === "string" ? raw : (raw[0] ?? ""));

/** A list as users write it: an array, or one value. Empty elements are dropped. */
export const listOf = (raw: SettingValue): string[] =>
  (typeof raw === "string" ? [raw] : raw).filter((item) => item !== "");

export const text: Parser<string> = parser({}, (raw) => ({ value: scalarOf(raw) }));

export const list: Parser<string[]> = parser({}, (raw) => ({ value: listOf(raw) }));

/** Empty and the usual words mean off, anything else on. */
export const flag: Parser<boolean> = parser({ kind: "flag", choices: ["yes", "no"] }, (raw) => ({
  value: isOn(raw),
}));

export const isOn = (raw: SettingValue): boolean => !/^(|0|n|no|off|false)$/i.test(scalarOf(raw));

export function wholeNumber(min: number, max: number): Parser<number> {
  const allowed = `a whole number from ${min} to ${max}`;
  return parser({ allowed }, (raw) => {
    const value = scalarOf(raw);
    return /^[0-9]{1,9}$/.test(value) && +value >= min && +value <= max ? { value: +value } : { allowed };
  });
}

/** The same, or empty for none. */
export function optionalNumber(min: number, max: number): Parser<number | undefined> {
  const number = wholeNumber(min, max);
  const allowed = `${number.allowed}, or empty`;
  return parser<number | undefined>({ allowed }, (raw) => {
    if (scalarOf(raw) === "") return { value: undefined };
    const parsed = number(raw);
    return "value" in parsed ? parsed : { allowed };
  });
}

/** @param parse an item's name, or an alias of it */
export function oneOf<const T extends string>(
  choices: readonly T[],
  parse = (word: string): T | undefined => choices.find((choice) => choice === word),
): Parser<T> {
  const allowed = `one of ${choices.join(" ")}`;
  return parser({ allowed, choices }, (raw) => {
    const value = parse(scalarOf(raw));
    return value === undefined ? { allowed } : { value };
  });
}

/** A text of some form. */
export const textOfForm = (
  allowed: string,
  isGood: (value: string) => boolean,
  kind?: ParserKind,
): Parser<string> =>
  parser({ allowed, ...(kind && { kind }) }, (raw) =>
    isGood(scalarOf(raw)) ? { value: scalarOf(raw) } : { allowed },
  );

/** A text that must match a pattern. */
export const pattern = (allowed: string, regexp: RegExp): Parser<string> =>
  textOfForm(allowed, (value) => regexp.test(value));

const MEMORY_SYNTAX = "a size like 2G, 512M or a number of MiB";

/** `2G`, `512M`, or a number of MiB → MiB. */
export const memory: Parser<number> = parser({ allowed: MEMORY_SYNTAX }, (raw) => {
  const bytes = parseSize(scalarOf(raw), "M");
  return bytes && bytes % (1 << 20) === 0 ? { value: bytes / (1 << 20) } : { allowed: MEMORY_SYNTAX };
});

/** The same, or empty for none. */
export const optionalMemory: Parser<number | undefined> = parser<number | undefined>(
  { allowed: `${MEMORY_SYNTAX}, or empty` },
  (raw) => {
    if (scalarOf(raw) === "") return { value: undefined };
    const parsed = memory(raw);
    return "value" in parsed ? parsed : { allowed: `${MEMORY_SYNTAX}, or empty` };
  },
);

/** `2G,slots=2,maxmem=8G`: the part after the first comma is for qemu. */
export const optionsBehind = (raw: SettingValue): string => /,(.*)$/s.exec(scalarOf(raw))?.[1] ?? "";

/**
 * [compat] A value followed by options of qemu.
 * @param parse parses the part before the first comma
 * @param keys of these options
 */
export function withOptions<T>(parse: Parser<T>, keys: readonly string[]): Parser<T> {
  const option = new RegExp(`^(${keys.join("|")})=[0-9]+[KMGTkmgt]?$`);
  return parser(factsOf(parse), (raw) => {
    const [head = "", ...options] = scalarOf(raw).split(",");
    const parsed = parse(head);
    if (!("value" in parsed) || options.every((one) => option.test(one))) return parsed;
    return { allowed: `${keys.map((key) => `${key}=N`).join(" or ")} after a comma` };
  });
}

const factsOf = ({ kind, allowed, choices }: Parser<unknown>): ParserFacts => ({
  kind,
  ...(allowed !== undefined && { allowed }),
  ...(choices && { choices }),
});

interface ListForm<T> {
  /** Of one item. */
  allowed: string;
  parse: (item: string) => T | undefined;
  kind?: ParserKind;
  /** Stands between items, too: a plain value over a default array is an array. */
  separator?: RegExp;
  meant?: (item: string) => string | undefined;
  /** Replaces `allowed` in the error about an item. */
  explain?: (item: string) => string;
}

/** A list whose every element has a form of its own. */
export function listOfForm<T>({ allowed, parse, kind, separator, meant, explain }: ListForm<T>): Parser<T[]> {
  return parser({ allowed, ...(kind && { kind }) }, (raw) => {
    const items = listOf(separator ? [raw].flat().flatMap((item) => item.split(separator)) : raw);
    const value: T[] = [];
    for (const given of items) {
      const parsed = parse(given);
      if (parsed === undefined) return { allowed: explain?.(given) ?? allowed, given, meant: meant?.(given) };
      value.push(parsed);
    }
    return { value };
  });
}
