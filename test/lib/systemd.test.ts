import { describe, expect, test } from "bun:test";
import { escapePath, escapeValue, quoteCommand, quoteWord } from "../../src/lib/systemd.ts";

const PATHS = [
  "/",
  "/srv/vm1",
  "/srv//vm1/",
  "/srv/my vm",
  "/home/me/.vms/a-b_c:d",
  "/.hidden",
  "/a%b\\c\"d'e$f",
  "/Ёлка/😀",
  "/new\nline",
  "/{brace},~@",
];

describe("escapePath", () => {
  test.each([
    ["/", "-"],
    ["/srv/my vm", String.raw`srv-my\x20vm`],
    ["/a-b/.c", String.raw`a\x2db-.c`],
    ["/.c", String.raw`\x2ec`],
  ])("%j is %j", (path, name) => expect(escapePath(path)).toBe(name));

  const real = Bun.which("systemd-escape");
  test.skipIf(!real).each(PATHS)("escapes %j like systemd-escape", (path) => {
    const { stdout } = Bun.spawnSync([real!, "--path", "--", path]);
    expect(escapePath(path)).toBe(stdout.toString().trimEnd());
  });
});

test.each([
  ["a b", `"a b"`],
  ['a"b\\', String.raw`"a\"b\\"`],
  ["100%", `"100%%"`],
  ["a\nb\u0085", String.raw`"a\x0ab\xc2\x85"`],
  ["", `""`],
])("quoteWord %j", (word, quoted) => expect(quoteWord(word)).toBe(quoted));

test("a `$` in an argument is not a variable", () =>
  expect(quoteCommand(["/bin/a$b", "$HOME", "$$"])).toBe(`"/bin/a$b" "$$HOME" "$$$$"`));

test.each([
  ["100% \\ b", "100%% \\ b"],
  ["a\nb", "a?b"],
  ["a\\", "a?"],
])("escapeValue %j", (text, escaped) => expect(escapeValue(text)).toBe(escaped));
