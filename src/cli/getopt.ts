import { VmError } from "../lib/errors.ts";

/** What getopt needs to know of an option. */
export interface OptShape {
  long: string;
  short?: string | undefined;
  /** Takes a value. */
  value?: string | undefined;
  hidden?: true | undefined;
}

export interface Occurrence<T extends OptShape> {
  option: T;
  /** As the user spelt it, for messages. */
  spelling: string;
  value: string | undefined;
}

/**
 * Reads the options at the beginning of `words`, as getopt_long(3) does with POSIXLY_CORRECT: it stops at
 * the first word that is no option, or behind `--`. `node:util` parseArgs knows no abbreviations and goes
 * on behind words.
 * @returns the options in order, and the words that are left
 * @throws 64 for an unknown or ambiguous option, a missing or a surplus value
 */
export function parseOptions<T extends OptShape>(
  words: readonly string[],
  shapes: readonly T[],
  usage: string,
): { found: Occurrence<T>[]; rest: string[] } {
  const found: Occurrence<T>[] = [];
  const rest = [...words];
  const fail = (message: string, hint = usage): never => {
    throw new VmError("usage", message, { hint });
  };
  const takeValue = (spelling: string): string => {
    if (rest.length === 0) fail(`option ${spelling} needs a value`);
    return rest.shift()!;
  };
  while (rest[0]?.startsWith("-") && rest[0] !== "-") {
    const word = rest.shift()!;
    if (word === "--") break;
    if (word.startsWith("--")) {
      const equals = word.indexOf("=");
      const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
      const given = equals < 0 ? undefined : word.slice(equals + 1);
      const option = findLong(name, shapes, fail);
      const spelling = `--${option.long}`;
      if (option.value === undefined && given !== undefined) fail(`option ${spelling} takes no value`);
      const value = option.value === undefined ? undefined : (given ?? takeValue(spelling));
      found.push({ option, spelling, value });
      continue;
    }
    for (let cluster = word.slice(1); cluster !== "";) {
      const letter = [...cluster][0]!;
      cluster = cluster.slice(letter.length);
      const spelling = `-${letter}`;
      const option = shapes.find((shape) => shape.short === letter) ?? fail(`unknown option ${spelling}`);
      if (option.value === undefined) {
        found.push({ option, spelling, value: undefined });
        continue;
      }
      found.push({ option, spelling, value: cluster === "" ? takeValue(spelling) : cluster });
      break;
    }
  }
  return { found, rest };
}

/** The option of this name, or all that it may be short for. */
export function matchLong<T extends OptShape>(name: string, shapes: readonly T[]): T[] {
  const exact = shapes.find((shape) => shape.long === name);
  if (exact) return [exact];
  return shapes.filter((shape) => name !== "" && !shape.hidden && shape.long.startsWith(name));
}

function findLong<T extends OptShape>(
  name: string,
  shapes: readonly T[],
  fail: (message: string, hint?: string) => never,
): T {
  const near = matchLong(name, shapes);
  if (near.length === 1) return near[0]!;
  if (near.length === 0) return fail(`unknown option --${name}`);
  return fail(
    `option --${name} is ambiguous`,
    `it could be: ${near.map((shape) => `--${shape.long}`).join(" ")}`,
  );
}
