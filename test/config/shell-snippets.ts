/** Random settings files of difficult shell words. The same seed yields the same files. */

const NAMES = ["A", "B", "C", "A", "LIST", "NONE", "EMPTY", "HOME", "A\\\n"];
const USES =
  "$A $B $C $W $W $EMPTY $XDG $ODD $SUB $CTL $LIST $NONE $HOME ${A} ${W} ${NONE-} ${LIST} $\\\nA $A\\\nB".split(
    " ",
  );
const PLAIN = [..."ab/~:=,#$*[]!-+%@.^?é\u00a0😀\v", "~/", ":~", "x:~/a", "\\\n"];
const QUOTED = [
  ..."ab \n'~:#${}`*[!é😀",
  "~/",
  "\\a",
  "\\'",
  "\\\\",
  '\\"',
  "\\$",
  "\\`",
  "\\\n",
  "$ ",
  "$%",
];
const SINGLE_QUOTED = ["", "a b", "\\", "$A", "\n", '"', "#", "~", "{x,y}", "\\\n"];
const ESCAPED = [..."a \\$'\"~:=#\n{;(é😀\t[}`&"];
const ENDS = [
  "\n",
  "\n",
  " ",
  ";",
  "; ",
  " ; ",
  "\t",
  " # c\n",
  " \\\n",
  "\\\n ",
  " #\\\n",
  "\\\n",
  "\n\\\n#x\n",
];
const GAPS = [" ", " ", "\n", "\t", " #x'\n", " \\\n", " \\\n#c\n", "\n\n", " # \\\n", "\\\n "];
const WILD = [
  ...PLAIN,
  ...USES,
  ..."'\"'\"\\;{}()[]|&<>`_ \n",
  ..."'' \"\" \\\\ \\$ \\~ \\: ${A- ${A:- ${EMPTY:- ${W- ${ } {a,b} A= B= A=( A+= B+=( LIST= [0]= $( $$ $1 $' $\" ~a ~+".split(
    " ",
  ),
  "\nA=",
  " #",
];
const STARTS = [
  "A=",
  "A=",
  "B=(",
  "LIST=",
  "LIST+=",
  "B=1 A=",
  'A="',
  'A=("',
  "A=${B:-",
  "A=(${A-",
  'A="${EMPTY:-',
];
const CLOSERS = ["", "", "\n", " )", ")", '"', "'", "}", '}"', "})"];

/** Numbers from 0 to 1 (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Generates settings files and argument files from random numbers. */
export class Snippets {
  constructor(private readonly random: () => number) {}

  /** Mostly well-formed assignments, or random fragments. */
  settings(): string {
    return this.#chance(0.6) ? this.#repeat(1, 4, () => this.#assignment()) : this.#heap();
  }

  /** Words of all kinds, except those that bash takes for `[index]=value` in an array. */
  arguments(): string {
    return this.#repeat(1, 5, () => this.#word(0).replaceAll("[", "") + this.#pick(GAPS));
  }

  #heap(): string {
    return this.#pick(STARTS) + this.#repeat(1, 7, () => this.#pick(WILD)) + this.#pick(CLOSERS);
  }

  #assignment(): string {
    const left = this.#pick(NAMES) + (this.#chance(0.15) ? "+=" : "=");
    const elements = (): string =>
      this.#pick(["", ...GAPS]) + this.#repeat(0, 3, () => this.#word(0) + this.#pick(GAPS));
    const right = this.#chance(0.45) ? `(${elements()})` : this.#word(0);
    return left + right + this.#pick(ENDS);
  }

  #word(depth: number): string {
    return this.#repeat(0, 4, () => {
      const kind = this.random();
      if (kind < 0.3) return this.#pick(PLAIN);
      if (kind < 0.5) return this.#pick(USES);
      if (kind < 0.63) return `"${this.#quoted(depth)}"`;
      if (kind < 0.71) return `'${this.#pick(SINGLE_QUOTED)}'`;
      if (kind < 0.81) return `\\${this.#pick(ESCAPED)}`;
      if (kind > 0.98 || depth > 3) return this.#pick(WILD);
      const odd = this.#chance(0.2) ? this.#pick([..." \n\t();|&#><{"]) : "";
      return this.#braces(odd + this.#word(depth + 1));
    });
  }

  #quoted(depth: number): string {
    return this.#repeat(0, 3, () => {
      const kind = this.random();
      if (kind < 0.45) return this.#pick(QUOTED);
      return kind < 0.75 || depth > 3 ? this.#pick(USES) : this.#braces(this.#quoted(depth + 1));
    });
  }

  #braces(word: string): string {
    return `\${${this.#pick([...NAMES, "W", "XDG"])}${this.#pick(["-", ":-", ":\\\n-", "-\\\n"])}${word}}`;
  }

  #chance(probability: number): boolean {
    return this.random() < probability;
  }

  #pick<Item>(items: readonly Item[]): Item {
    return items[Math.floor(this.random() * items.length)]!;
  }

  #repeat(least: number, most: number, make: () => string): string {
    return Array.from({ length: least + Math.floor(this.random() * (most - least + 1)) }, make).join("");
  }
}
