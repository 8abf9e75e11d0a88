import { VmError } from "../lib/errors.ts";

/** What getopt needs to know of an option. */
export interface OptShape {
  long: string;
  short?: string | undefined;
  /** Takes a value. */
  value?: string | undefined;
  hidden?: true | undefined;
  /** Never abbreviated: it came later, and must not make older abbreviations ambiguous. */
  whole?: true | undefined;
}

export interface Occurrence<T extends OptShape> {
  option: T;
  /** As the user spelt it, for messages. */
  spelling: string;
  value: string | undefined;
}

/** An option that is not among those asked for. */
export class UnknownOption extends VmError {
  constructor(
    /** `--name` without its value, or `-x`. */
    readonly spelling: string,
    hint: string,
  ) {
    super("usage", `unknown option ${spelling}`, { hint });
  }
}

/** The words that an occurrence stands for: `--memory=4G`, or `-m` and `4G`. */
export const wordsOfOption = ({ spelling, value }: Occurrence<OptShape>): string[] => {
  if (value === undefined) return [spelling];
  return spelling.startsWith("--") ? [`${spelling}=${value}`] : [spelling, value];
};

/**
 * Reads the options at the beginning of `words`, as getopt_long(3) does with POSIXLY_CORRECT: it stops at
 * the first word that is no option, or behind `--`. `node:util` parseArgs knows no abbreviations and goes
 * on behind words.
 * @param further count where none of `shapes` has the name, or begins with it
 * @returns the options in order, and the words that are left
 * @throws 64 for an unknown or ambiguous option, a missing or a surplus value
 */
export function parseOptions<T extends OptShape, F extends OptShape = T>(
  words: readonly string[],
  shapes: readonly T[],
  usage: string,
  further: readonly F[] = [],
): { found: Occurrence<T | F>[]; rest: string[] } {
  const found: Occurrence<T | F>[] = [];
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
      const near = matchLong(name, shapes, further);
      if (near.length > 1)
        fail(
          `option --${name} is ambiguous`,
          `it could be: ${near.map((shape) => `--${shape.long}`).join(" ")}`,
        );
      const [option] = near;
      if (!option) throw new UnknownOption(`--${name}`, usage);
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
      const option = [...shapes, ...further].find((shape) => shape.short === letter);
      if (!option) throw new UnknownOption(spelling, usage);
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

/** The option of this name, or all that it may be short for; `further` ones where none of `shapes` fits. */
export function matchLong<T extends OptShape, F extends OptShape = T>(
  name: string,
  shapes: readonly T[],
  further: readonly F[] = [],
): (T | F)[] {
  const exact = [...shapes, ...further].find((shape) => shape.long === name);
  if (exact) return [exact];
  for (const group of [shapes, further]) {
    const near = group.filter(
      ({ long, hidden, whole }) => name !== "" && !hidden && !whole && long.startsWith(name),
    );
    if (near.length > 0) return near;
  }
  return [];
}
