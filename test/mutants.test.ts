/** The list of `scripts/mutate` matches the sources: each text occurs once, each test exists with its title. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { MUTANTS } from "../scripts/lib/mutants.ts";

const ROOT = join(import.meta.dir, "..");

test.each(MUTANTS.map((mutant) => [`${mutant.file}: ${mutant.from}`, mutant] as const))(
  "%s",
  (_title, { file, from, test: where }) => {
    const text = readFileSync(join(ROOT, "src", file), "utf8");
    expect(text.split(from)).toHaveLength(2);
    const [tests = "", titles = ""] = where.split(":");
    expect(readFileSync(join(ROOT, "test", tests), "utf8")).toMatch(new RegExp(titles));
  },
);
