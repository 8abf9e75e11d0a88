import { describe, expect, test } from "bun:test";
import { readArguments } from "../../src/config/literal.ts";
import { askBash, lookup } from "./bash-oracle.ts";
import { seededRandom, Snippets } from "./shell-snippets.ts";

/** Each asks bash once, which may take seconds on a busy machine. RANDOM_CASES=N for more. */
const CASES = Number(process.env.RANDOM_CASES ?? 100);

describe("readArguments", () => {
  test.each<[string, string[]]>([
    ["", []],
    ["# nothing\n\n  # at all", []],
    ["-m 2G", ["-m", "2G"]],
    ["-m 2G\n-smp 2 # two\n", ["-m", "2G", "-smp", "2"]],
    ["-m 2G \\\n-smp 2 \\\n", ["-m", "2G", "-smp", "2"]],
    ["-m 2G \\\n# comment\n-smp 2 \\", ["-m", "2G", "-smp", "2"]],
    ["-m\\\n2G", ["-m2G"]],
    ["-name 'a b' -name \"c d\" -name e\\ f", ["-name", "a b", "-name", "c d", "-name", "e f"]],
    ["-name '' \"\"", ["-name", "", ""]],
    ['-name $XDG "$XDG" a$XDG', ["-name", "/x y", "/x y", "a/x y"]],
    ['$EMPTY "$EMPTY" a$EMPTY ${EMPTY}', ["", "a"]],
    ["${FOO:-a b} ${FOO-} ${W:-x}", ["a b", "word"]],
    [
      "file=$HOME/a.img ~/b.img ~ '~/c'",
      ["file=/home/me/a.img", "/home/me/b.img", "~/c".replace("~/c", "/home/me"), "~/c"],
    ],
    ["-drive file=a,if={x,y} *.img [a] a#b", ["-drive", "file=a,if={x,y}", "*.img", "[a]", "a#b"]],
    ["-object 'secret,id=s;data=$W|&'", ["-object", "secret,id=s;data=$W|&"]],
    ["$LIST a$ b!", ["one", "a$", "b!"]],
    ['-append "root=/dev/sda \\\nquiet"', ["-append", "root=/dev/sda quiet"]],
  ])("%j", (text, words) => {
    expect(readArguments(text, lookup)).toEqual({ kind: "values", words });
  });

  test.each([
    ["-m 2G\n-name $HOEM", 2, "HOEM is not set"],
    ["-m $(free)", 1, "not supported here: an expansion $(…"],
    ["-m `free`", 1, "not supported here: a command in `…`"],
    ['-m "$(free)"', 1, "not supported here: an expansion $(…"],
    ["\n-m 2G; reboot", 2, "not supported here: an unquoted ;"],
    ["-m 2G | tee", 1, "not supported here: an unquoted |"],
    ["-m 2G & x", 1, "not supported here: an unquoted &"],
    ["-m <x", 1, "not supported here: an unquoted <"],
    ["-m >x", 1, "not supported here: an unquoted >"],
    ["-m (x", 1, "not supported here: an unquoted ("],
    ["-m x)", 1, "not supported here: an unquoted )"],
    ["-name ${W%d}", 1, "not supported here: a ${…} with more than a name and a :-word"],
    ["-name $$", 1, "not supported here: an expansion $$…"],
    ["-name $RANDOM", 1, "not supported here: RANDOM belongs to the shell"],
    ["-drive file=~/x", 1, "not supported here: a ~ after ="],
    ["~root/x", 1, "not supported here: a ~ with more than / after it"],
    ["-m 2G \\ \n-smp 2", 1, "not supported here: a blank after the backslash that ends the line"],
    ["-name 'x", 1, "' without its end"],
    ["-m 2G\r\n", 1, "a carriage return: the file has DOS line ends"],
    ["\uFEFF-m 2G", 1, "a byte order mark before the first line"],
    ["-m 2G\n\0", 2, "a NUL byte: this is not a text file"],
  ])("%j is an error", (text, line, message) => {
    expect(readArguments(text, lookup)).toMatchObject({ kind: "error", line, message });
  });

  test(`random arguments against bash (${CASES})`, () => {
    const snippets = new Snippets(seededRandom(9));
    const texts = Array.from({ length: CASES }, () => snippets.arguments());
    const answers = askBash(texts, "arguments");
    let understood = 0;
    for (const [index, text] of texts.entries()) {
      const result = readArguments(text, lookup);
      if (result.kind === "error") continue;
      understood++;
      expect({ text, words: result.words }).toEqual({ text, words: answers[index]?.["D"] as string[] });
    }
    expect(understood).toBeGreaterThan(CASES / 5);
  }, 600_000);
});
