/** A command in a message can be pasted: it starts with the program's name (`commandLine`). */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { LOADERS } from "../src/cli/loaders.ts";

const SRC = join(import.meta.dir, "../src");
const WORDS = String.raw`(?: (?:list|add|remove|rm|show|[A-Z]+\b|--?[\w-]+))*`;
const BARE = new RegExp(
  `(?<=\\w)(?<!default): (?:${Object.keys(LOADERS).join("|")})${WORDS}(?=["\`)]|; |=\\$)`,
  "g",
);

test.each([
  ['"add one: nic add"', true],
  ["`for its disks as well: restore`", true],
  ['"list them: verify --all; keep those"', true],
  ["`create a VM from it: create NAME --from=${path}`", true],
  ["`add one: ${commandLine(x)}`", false],
  ['"no snapshot was made; restore a good one"', false],
])("%s: %p", (code, isBare) => {
  expect(code.search(BARE) >= 0).toBe(isBare);
});

test("no message has a command without it", () => {
  const found: string[] = [];
  for (const file of new Bun.Glob("**/*.ts").scanSync({ cwd: SRC, absolute: true })) {
    const code = readFileSync(file, "utf8").replaceAll(/^\s*(?:\/\/|\/?\*).*$/gm, "");
    for (const [text] of code.matchAll(BARE)) found.push(`${relative(SRC, file)}${text}`);
  }
  expect(found).toEqual([]);
});
