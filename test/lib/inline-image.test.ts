import { describe, expect, test } from "bun:test";
import { formatInlineImage, IMAGE_TERMINALS, imageProtocolOf } from "../../src/lib/inline-image.ts";

describe("the protocol of a terminal with", () => {
  test.each<[Record<string, string>, ReturnType<typeof imageProtocolOf>]>([
    [{}, undefined],
    [{ TERM: "xterm-256color" }, undefined],
    [{ TERM: "xterm-kitty" }, "kitty"],
    [{ TERM: "xterm-256color", KITTY_WINDOW_ID: "1" }, "kitty"],
    [{ TERM: "xterm-ghostty" }, "kitty"],
    [{ TERM_PROGRAM: "ghostty" }, "kitty"],
    [{ KONSOLE_VERSION: "220400" }, "kitty"],
    [{ KONSOLE_VERSION: "211203" }, undefined],
    [{ TERM_PROGRAM: "iTerm.app" }, "iterm2"],
    [{ LC_TERMINAL: "iTerm2" }, "iterm2"],
    [{ TERM_PROGRAM: "WezTerm" }, "iterm2"],
    [{ TERM_PROGRAM: "mintty" }, "iterm2"],
    [{ TERM_PROGRAM: "Apple_Terminal" }, undefined],
    [{ TERM: "tmux-256color", KITTY_WINDOW_ID: "1" }, undefined],
    [{ TERM: "xterm-kitty", TMUX: "/tmp/tmux-0/default,1,0" }, undefined],
    [{ TERM: "screen", LC_TERMINAL: "iTerm2" }, undefined],
  ])("%j: %p", (env, protocol) => {
    expect(imageProtocolOf(env)).toBe(protocol);
  });
});

test("kitty gets pieces of at most 4096 characters", () => {
  const png = Buffer.from(Array.from({ length: 10_000 }, (_, index) => index % 251));
  const text = formatInlineImage("kitty", png);
  const pieces = [...text.matchAll(/\x1b_G([^;]*);([^\x1b]*)\x1b\\/g)];
  expect(pieces.map(([, control]) => control)).toEqual([
    "a=T,f=100,q=2,m=1",
    ...Array.from({ length: pieces.length - 2 }, () => "m=1"),
    "m=0",
  ]);
  for (const [, , data = ""] of pieces) expect(data.length).toBeLessThanOrEqual(4096);
  expect(Buffer.from(pieces.map(([, , data]) => data).join(""), "base64")).toEqual(png);
  expect(text.replaceAll(/\x1b_G[^\x1b]*\x1b\\/g, "")).toBe("\n");
});

test("iTerm2 gets it in one piece, with its size", () => {
  expect(formatInlineImage("iterm2", Buffer.from("abc"))).toBe("\x1b]1337;File=inline=1;size=3:YWJj\x07\n");
});

test("knows the terminals' names", () => {
  expect(IMAGE_TERMINALS).toContain("kitty, ");
});
