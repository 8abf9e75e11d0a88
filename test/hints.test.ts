/** A command in a message can be pasted: it is made by `commandLine` or `programLine`, which quote its words. */
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

/** The program's name followed by words; its version is none. */
const GLUED = /\$\{(?:\w+\.)?prog(?:ramName\(\))?\} (?!\$\{(?:\w+\.)?version\})/g;

/**
 * - cli: usage lines such as `vm run [ISO]`, and commands by their names, before the command line is understood.
 * - host: scripts, and descriptions.
 */
const GLUING: Readonly<Record<string, number>> = {
  "cli/argv.ts": 1,
  "cli/batch.ts": 1,
  "cli/invocation.ts": 5,
  "cli/suggest.ts": 1,
  "cli/usage.ts": 7,
  "host/completion.ts": 6,
  "host/config-example.ts": 2,
  "host/timer/units.ts": 1,
  "vm/systemd.ts": 1,
};

test.each([
  ["`start it: ${prog} run`", true],
  ["`start it: ${context.prog} run ${name}`", true],
  ["`start it: ${programName()} run`", true],
  ["`start it: ${commandLine(x)}`", false],
  ["`written by ${context.prog} ${context.version}`", false],
  ["`in ~/.config/${programName()}.conf`", false],
])("%s: glued: %p", (code, isGlued) => {
  expect(code.search(GLUED) >= 0).toBe(isGlued);
});

test("only these places put words behind the program's name", () => {
  const found: Record<string, number> = {};
  for (const file of new Bun.Glob("**/*.ts").scanSync({ cwd: SRC, absolute: true })) {
    const code = readFileSync(file, "utf8").replaceAll(/^\s*(?:\/\/|\/?\*).*$/gm, "");
    const count = code.match(GLUED)?.length ?? 0;
    if (count > 0) found[relative(SRC, file)] = count;
  }
  expect(found).toEqual(GLUING);
});
