import { describe, expect, test } from "bun:test";
import { themeOf, wantsColours } from "../../src/cli/colours.ts";
import { buildDefaults } from "../../src/config/defaults.ts";
import { parseSettings } from "../../src/config/schema.ts";
import { PLAIN } from "../../src/lib/log.ts";

describe("wantsColours: --no-colors, environment, terminal", () => {
  test.each([
    [false, {}, true, true],
    [false, { TERM: "xterm" }, true, true],
    [false, { NO_COLOR: "" }, true, true],
    [true, {}, true, false],
    [false, {}, false, false],
    [false, { NO_COLOR: "1" }, true, false],
    [false, { NO_COLOR: "0" }, true, false],
    [false, { TERM: "dumb" }, true, false],
  ])("%p, %j, %p: %p", (noColors, env, isTTY, wanted) => {
    expect(wantsColours(noColors, env, isTTY)).toBe(wanted);
  });
});

const settings = (changes: Record<string, string>) =>
  parseSettings({
    ...buildDefaults({ prog: "vm", home: "/h", hostArch: "x86_64", libexec: "/l" }),
    ...changes,
  });

describe("themeOf", () => {
  test("has defaults", () => {
    expect(themeOf(settings({}), true)).toEqual({
      normal: "\x1b[0m",
      bold: "\x1b[1;37m",
      ok: "\x1b[0;32m",
      error: "\x1b[1;31m",
      warning: "\x1b[1;33m",
      command: "\x1b[1;33m",
      name: "\x1b[1;35m",
    });
  });

  test.each([
    ["\\033[1;32m", "\x1b[1;32m"],
    ["\\e[1m\\E[4m", "\x1b[1m\x1b[4m"],
    ["\\x1b[1m\\x1B[m", "\x1b[1m\x1b[m"],
    ["\x1b[1m", "\x1b[1m"],
    ["", ""],
  ])("%j is %j", (written, sequence) => {
    expect(themeOf(settings({ CLR_OK: written }), true).ok).toBe(sequence);
  });

  test("is empty without colours", () => {
    expect(themeOf(settings({}), false)).toEqual(PLAIN);
  });
});
