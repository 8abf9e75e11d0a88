/** The list of `scripts/mutate` matches the sources: each text occurs once, each test exists. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MUTANTS } from "../scripts/lib/mutants.ts";

const ROOT = join(import.meta.dir, "..");

test.each(MUTANTS.map((mutant) => [`${mutant.file}: ${mutant.from}`, mutant] as const))(
  "%s",
  (_title, { file, from, test: where }) => {
    const text = readFileSync(join(ROOT, "src", file), "utf8");
    expect(text.split(from)).toHaveLength(2);
    expect(existsSync(join(ROOT, "test", where.split(":")[0]!))).toBeTrue();
  },
);
