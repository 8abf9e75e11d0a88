/** Applies each mutant (mutants.ts) in a copy of the sources, and tells which the unit tests see: `mutate.ts [WORD…]` */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { MUTANTS, type Mutant } from "./mutants.ts";

const checkout = resolve(import.meta.dir, "../..");
/** One that makes the tests hang is seen, too. */
const LIMIT_MS = 300_000;

/** @returns whether the tests fail, or do not end */
function isCaught(copy: string, { test }: Pick<Mutant, "test">): boolean {
  const [path = "", titles] = test.split(":");
  const filter = titles === undefined ? [] : ["-t", titles];
  const argv = ["bun", "test", "--timeout", "60000", ...filter, `./test/${path}`];
  const { exitCode } = Bun.spawnSync(argv, {
    cwd: copy,
    stdout: "ignore",
    stderr: "ignore",
    timeout: LIMIT_MS,
  });
  return exitCode !== 0;
}

const words = process.argv.slice(2);
const chosen = MUTANTS.filter(
  ({ file, test }) => words.length === 0 || words.some((word) => `${file} ${test}`.includes(word)),
);
const copy = mkdtempSync(join(tmpdir(), "vm-mutate-"));
const survived: Mutant[] = [];
try {
  for (const name of ["src", "test", "jobs", "scripts", "package.json", "bunfig.toml", "tsconfig.json"])
    cpSync(join(checkout, name), join(copy, name), { recursive: true, verbatimSymlinks: true });
  symlinkSync(join(checkout, "node_modules"), join(copy, "node_modules"));
  for (const one of chosen) {
    const path = join(copy, "src", one.file);
    const text = readFileSync(path, "utf8");
    if (text.split(one.from).length !== 2)
      throw new Error(`${one.file}: not there exactly once: ${one.from}`);
    writeFileSync(
      path,
      text.replace(one.from, () => one.to),
    );
    const caught = isCaught(copy, one);
    if (!caught) survived.push(one);
    console.log(`${caught ? "caught  " : "survived"} ${one.file}: ${one.from} → ${one.to || "(nothing)"}`);
    writeFileSync(path, text);
  }
} finally {
  rmSync(copy, { recursive: true, force: true });
}
// Tests that fail without any fault would see everything.
console.log(`${chosen.length - survived.length} of ${chosen.length} mutants caught`);
