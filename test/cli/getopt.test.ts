import { describe, expect, test } from "bun:test";
import { parseOptions, type OptShape } from "../../src/cli/getopt.ts";
import { meaningOf, wordsOf } from "./lines.ts";

const SHAPES: OptShape[] = [
  { long: "cores", short: "c", value: "N" },
  { long: "color", value: "WHEN" },
  { long: "keep", short: "k" },
  { long: "keep-cd" },
  { long: "uefi", short: "u" },
  { long: "жёлтый", short: "ж" },
  { long: "tmeout", value: "S", hidden: true },
  { long: "timeout", short: "t", value: "S" },
];

/** `-c=8 keep | rest of the words` */
const read = (line: string): string =>
  meaningOf(() => {
    const { found, rest } = parseOptions(wordsOf(line), SHAPES, "see -h");
    const options = found.map(({ option, value }) =>
      value === undefined ? option.long : `${option.long}=${value}`,
    );
    return `${options.join(" ")} | ${rest.join(" ")}`;
  });

test.each([
  ["", " | "],
  ["word --keep", " | word --keep"],
  ["-c 8 x", "cores=8 | x"],
  ["-c8 x", "cores=8 | x"],
  ["--cores 8 x", "cores=8 | x"],
  ["--cores=8 x", "cores=8 | x"],
  ["--cor 8", "cores=8 | "],
  ["--cor=8", "cores=8 | "],
  ["-ku", "keep uefi | "],
  ["-kuc8", "keep uefi cores=8 | "],
  ["-kuc 8", "keep uefi cores=8 | "],
  ["-cku", "cores=ku | "],
  ["-c=8", "cores==8 | "],
  ["--cores= x", "cores= | x"],
  ["--cores '' x", "cores= | x"],
  ["-c '' x", "cores= | x"],
  ["--cores=a=b", "cores=a=b | "],
  ["-c -1", "cores=-1 | "],
  ["-c -- x", "cores=-- | x"],
  ["-c --keep", "cores=--keep | "],
  ["-k -k --keep", "keep keep keep | "],
  ["-c1 -c2", "cores=1 cores=2 | "],
  ["-- -k x", " | -k x"],
  ["-k -- -- x", "keep | -- x"],
  ["- -k", " | - -k"],
  ["'' -k", " |  -k"],
  ["-ж", "жёлтый | "],
  ["--жё", "жёлтый | "],
  // An exact name is never ambiguous.
  ["--keep", "keep | "],
  ["--keep-", "keep-cd | "],
  // A hidden one must be typed completely, and makes no abbreviation ambiguous.
  ["--tmeout=5", "tmeout=5 | "],
  ["--tim 5", "timeout=5 | "],
  ["--t 5", "timeout=5 | "],
  ["--tme=5", "64: unknown option --tme"],
  ["--co 8", "64: option --co is ambiguous"],
  ["--ke", "64: option --ke is ambiguous"],
  ["--kept", "64: unknown option --kept"],
  ["--x=1", "64: unknown option --x"],
  ["--=1", "64: unknown option --"],
  ["---keep", "64: unknown option ---keep"],
  ["-x", "64: unknown option -x"],
  ["-kx", "64: unknown option -x"],
  ["-k-", "64: unknown option --"],
  ["-😀", "64: unknown option -😀"],
  ["-c", "64: option -c needs a value"],
  ["-kc", "64: option -c needs a value"],
  ["--cores", "64: option --cores needs a value"],
  ["--cor", "64: option --cores needs a value"],
  ["--keep=1", "64: option --keep takes no value"],
  ["--keep= x", "64: option --keep takes no value"],
  ["--KEEP", "64: unknown option --KEEP"],
  ["--constructor", "64: unknown option --constructor"],
  ["--__proto__", "64: unknown option --__proto__"],
  ["--toString=x", "64: unknown option --toString"],
])("%s → %s", (line, meaning) => {
  expect(read(line)).toBe(meaning);
});

const hintOf = (line: string): unknown => {
  try {
    parseOptions(wordsOf(line), SHAPES, "see -h");
  } catch (error) {
    return (error as { hint?: string }).hint;
  }
  return "none";
};

describe("the hint", () => {
  test.each([
    ["--ke", "it could be: --keep --keep-cd"],
    ["--nothing", "see -h"],
    ["-x", "see -h"],
  ])("for %s: %s", (line, hint) => {
    expect(hintOf(line)).toBe(hint);
  });
});

test("leaves the given words unchanged", () => {
  const words = ["-k", "x"];
  parseOptions(words, SHAPES, "");
  expect(words).toEqual(["-k", "x"]);
});
