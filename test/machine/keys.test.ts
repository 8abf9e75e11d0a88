import { describe, expect, test } from "bun:test";
import { KEYS, parseChord, parseTyping } from "../../src/machine/keys.ts";

describe("keys", () => {
  test.each<[string, string[]]>([
    ["a", ["a"]],
    ["ret", ["ret"]],
    ["Enter".toLowerCase(), ["ret"]],
    ["ctrl-alt-delete", ["ctrl", "alt", "delete"]],
    ["ctrl-alt-del", ["ctrl", "alt", "delete"]],
    ["shift-f12", ["shift", "f12"]],
    ["super-pageup", ["meta_l", "pgup"]],
  ])("%s", (text, keys) => expect(parseChord(text)).toEqual(keys));

  test.each(["", "-", "a-", "F1", "ctrl+c", "ä", "a-b-c-d-e-f", "constructor", "ctrl--a", "a\n"])(
    "%j is no key",
    (text) => expect(parseChord(text)).toBeUndefined(),
  );
});

describe("a text", () => {
  test("of all characters of the US layout is typed with keys that there are, each in its own way", () => {
    const text = Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index)).join("");
    const typing = parseTyping(text.replace("\\", "\\\\"));
    if (!("chords" in typing)) throw new Error(`cannot type ${typing.untypable}`);
    expect(typing.chords).toHaveLength(95);
    expect(new Set(typing.chords.map((chord) => chord.join("-"))).size).toBe(95);
    for (const key of typing.chords.flat()) expect(KEYS).toContain(key);
  });

  test.each<[string, string[][]]>([
    ["aB", [["a"], ["shift", "b"]]],
    ["\\n\\t\\e\\\\", [["ret"], ["tab"], ["esc"], ["backslash"]]],
    ["\n", [["ret"]]],
    [
      "~!",
      [
        ["shift", "grave_accent"],
        ["shift", "1"],
      ],
    ],
    ["", []],
  ])("%j", (text, chords) => expect(parseTyping(text)).toEqual({ chords }));

  test.each(["й", "\u0001", "\\x", "😀", "é"])("%j cannot be typed", (text) =>
    expect(parseTyping(`a${text}`)).toEqual({ untypable: text }),
  );
});
