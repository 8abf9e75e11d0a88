/** Keys of a keyboard: qemu's names (qapi/ui.json, QKeyCode), and the characters of the US layout. */

const LETTERS = "abcdefghijklmnopqrstuvwxyz";

/** Names of keys, those of characters first. */
export const KEYS = [
  ..."0123456789",
  ...LETTERS,
  ..."minus equal bracket_left bracket_right backslash semicolon apostrophe grave_accent comma dot slash less".split(
    " ",
  ),
  ..."ret tab spc backspace esc insert delete home end pgup pgdn up down left right".split(" "),
  ...Array.from({ length: 12 }, (_, index) => `f${index + 1}`),
  ..."shift shift_r ctrl ctrl_r alt alt_r meta_l meta_r menu compose".split(" "),
  ..."caps_lock num_lock scroll_lock print sysrq pause".split(" "),
  ...Array.from({ length: 10 }, (_, index) => `kp_${index}`),
  ..."kp_divide kp_multiply kp_subtract kp_add kp_enter kp_decimal".split(" "),
] as readonly string[];

/** Other names of keys. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ["enter", "ret"],
  ["return", "ret"],
  ["space", "spc"],
  ["escape", "esc"],
  ["del", "delete"],
  ["ins", "insert"],
  ["pageup", "pgup"],
  ["pagedown", "pgdn"],
  ["super", "meta_l"],
  ["win", "meta_l"],
]);

/** All names. */
export const KEY_NAMES: readonly string[] = [...KEYS, ...ALIASES.keys()];

/** Keys that are pressed together. */
export type Chord = string[];

/** More keys at once may not fit the queue of a keyboard: 16 bytes of PS/2, at most 5 a key. */
export const MAX_CHORD = 5;

/** `ctrl-alt-f2` → keys; undefined if there is no such key. */
export function parseChord(text: string): Chord | undefined {
  const keys = text.split("-").map((name) => ALIASES.get(name) ?? name);
  return keys.length <= MAX_CHORD && keys.every((key) => KEYS.includes(key)) ? keys : undefined;
}

/** Keys of characters, each alone and with shift. */
const CHARACTERS = new Map<string, Chord>([
  ...[...LETTERS, ..."0123456789"].map((key): [string, Chord] => [key, [key]]),
  ...[...LETTERS].map((key): [string, Chord] => [key.toUpperCase(), ["shift", key]]),
  ...[...")!@#$%^&*("].map((character, digit): [string, Chord] => [character, ["shift", String(digit)]]),
  ...(
    [
      ["-_", "minus"],
      ["=+", "equal"],
      ["[{", "bracket_left"],
      ["]}", "bracket_right"],
      ["\\|", "backslash"],
      [";:", "semicolon"],
      [`'"`, "apostrophe"],
      ["`~", "grave_accent"],
      [",<", "comma"],
      [".>", "dot"],
      ["/?", "slash"],
    ] as const
  ).flatMap(([[plain, shifted], key]): [string, Chord][] => [
    [plain!, [key]],
    [shifted!, ["shift", key]],
  ]),
  [" ", ["spc"]],
  ["\n", ["ret"]],
  ["\t", ["tab"]],
  ["\u001b", ["esc"]],
]);

const ESCAPES: Readonly<Record<string, string>> = { n: "\n", t: "\t", e: "\u001b", "\\": "\\" };

/** @returns the keys that type a text on a US keyboard, or what cannot be typed. `\n` is Enter, `\t` Tab, `\e` Esc, `\\` a backslash */
export function parseTyping(text: string): { chords: Chord[] } | { untypable: string } {
  const chords: Chord[] = [];
  for (const [unit] of text.matchAll(/\\[^]|[^]/gu)) {
    const character = unit.startsWith("\\") && unit.length > 1 ? ESCAPES[unit.slice(1)] : unit;
    const chord = character === undefined ? undefined : CHARACTERS.get(character);
    if (!chord) return { untypable: unit };
    chords.push(chord);
  }
  return { chords };
}
