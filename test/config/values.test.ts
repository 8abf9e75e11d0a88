import { describe, expect, test } from "bun:test";
import type { SettingValue } from "../../src/config/shell-expand.ts";
import {
  flag,
  list,
  listOf,
  listOfForm,
  memory,
  oneOf,
  optionalNumber,
  pattern,
  scalarOf,
  text,
  wholeNumber,
  type Parser,
} from "../../src/config/values.ts";

type Case = [raw: SettingValue, value: unknown];

/** Result of a parser for a value; for an invalid one `[allowed, given]`. */
function outcome(parse: Parser<unknown>, raw: SettingValue): unknown {
  const parsed = parse(raw);
  if ("value" in parsed) return parsed.value;
  return { allowed: parsed.allowed, ...(parsed.given !== undefined && { given: parsed.given }) };
}

describe("scalarOf and listOf", () => {
  test.each<[SettingValue, string, string[]]>([
    ["", "", []],
    ["a", "a", ["a"]],
    ["a b", "a b", ["a b"]],
    [[], "", []],
    [["a", "", "b"], "a", ["a", "b"]],
    [["", "b"], "", ["b"]],
  ])("%j: %j, %j", (raw, scalar, items) => {
    expect(scalarOf(raw)).toBe(scalar);
    expect(listOf(raw)).toEqual(items);
    expect(outcome(text, raw)).toBe(scalar);
    expect(outcome(list, raw)).toEqual(items);
  });
});

describe("flag", () => {
  test.each<Case>([
    ["", false],
    ["0", false],
    ["n", false],
    ["No", false],
    ["OFF", false],
    ["false", false],
    [[], false],
    ["1", true],
    ["yes", true],
    ["on", true],
    ["true", true],
    ["00", true],
    [" ", true],
    [["", "1"], false],
  ])("%j is %p", (raw, value) => {
    expect(outcome(flag, raw)).toBe(value);
  });
});

describe("wholeNumber(1, 64)", () => {
  const allowed = "a whole number from 1 to 64";
  test.each<Case>([
    ["1", 1],
    ["64", 64],
    ["007", 7],
    [["8", "x"], 8],
    ...["", "0", "65", "-1", "+1", "1.5", "1e1", "0x1", " 1", "1 ", "1\n", "many", "１", "1000000001"].map(
      (raw): Case => [raw, { allowed }],
    ),
    [[], { allowed }],
  ])("%j is %j", (raw, value) => {
    expect(outcome(wholeNumber(1, 64), raw)).toEqual(value);
  });
});

describe("optionalNumber(1, 65535)", () => {
  const allowed = "a whole number from 1 to 65535, or empty";
  test.each<Case>([
    ["", undefined],
    [[], undefined],
    ["5900", 5900],
    ["0", { allowed }],
    ["65536", { allowed }],
    ["99999", { allowed }],
    ["none", { allowed }],
  ])("%j is %j", (raw, value) => {
    expect(outcome(optionalNumber(1, 65535), raw)).toEqual(value);
  });
});

describe("oneOf(auto, kvm)", () => {
  test.each<Case>([
    ["auto", "auto"],
    [["kvm"], "kvm"],
    ["", { allowed: "one of auto kvm" }],
    ["KVM", { allowed: "one of auto kvm" }],
    ["constructor", { allowed: "one of auto kvm" }],
  ])("%j is %j", (raw, value) => {
    expect(outcome(oneOf(["auto", "kvm"]), raw)).toEqual(value);
  });
});

describe("pattern(/^a+$/)", () => {
  test.each<Case>([
    ["aa", "aa"],
    ["", { allowed: "some a" }],
    ["a\n", { allowed: "some a" }],
  ])("%j is %j", (raw, value) => {
    expect(outcome(pattern("some a", /^a+$/), raw)).toEqual(value);
  });
});

describe("memory in MiB", () => {
  const allowed = "a size like 2G, 512M or a number of MiB";
  test.each<Case>([
    ["2G", 2048],
    ["512M", 512],
    ["512", 512],
    ["1024K", 1],
    ["1T", 1048576],
    ...["", "0", "1K", "1.5G", "2X", "-1G", "lots", "512B"].map((raw): Case => [raw, { allowed }]),
  ])("%j is %j", (raw, value) => {
    expect(outcome(memory, raw)).toEqual(value);
  });
});

const parse = (item: string): number | undefined => (/^\d+$/.test(item) ? +item : undefined);

describe("listOfForm(digits, split at blanks and commas)", () => {
  const parser = listOfForm({ allowed: "digits", parse, separator: /[\s,]+/ });
  test.each<Case>([
    ["", []],
    [" , ", []],
    ["1,2 3", [1, 2, 3]],
    [
      ["1", "", "2"],
      [1, 2],
    ],
    ["1,x,y", { allowed: "digits", given: "x" }],
    // A plain value in a file is the first element of the default's array.
    [["1,2"], [1, 2]],
    ["0", [0]],
  ])("%j is %j", (raw, value) => {
    expect(outcome(parser, raw)).toEqual(value);
  });
  test("without a separator a text is one item", () => {
    expect(outcome(listOfForm({ allowed: "digits", parse }), "1,2")).toEqual({
      allowed: "digits",
      given: "1,2",
    });
  });
});
