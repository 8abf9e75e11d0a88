/** Files and commands that the READMEs mention exist and are valid. Sessions: test/e2e/readme.test.ts. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgv } from "../src/cli/argv.ts";

const ROOT = join(import.meta.dir, "..");
const README = readFileSync(join(ROOT, "README.md"), "utf8");

/** Command lines of the program in `console` blocks, without shell syntax around them. */
const LINES = [...README.matchAll(/```console\n(.*?)```/gs)]
  .flatMap((match) => [...match[1]!.matchAll(/^\$ (.*)$/gm)].map((line) => line[1]!))
  .flatMap((line) => line.replace(/ +#.*| &$/g, "").split(" && "))
  .filter((line) => line.startsWith("vm "));

describe("README: accepted:", () => {
  test.each(LINES)("%s", (line) => {
    const [, ...words] = line.match(/'[^']*'|\S+/g)!.map((word) => word.replaceAll("'", ""));
    expect(() => parseArgv(words, "vm")).not.toThrow();
  });

  test("finds command lines", () => {
    expect(LINES.length).toBeGreaterThan(40);
  });
});

describe.each(["README.md", "src/README.md"])("%s:", (file) => {
  const text = readFileSync(join(ROOT, file), "utf8");
  const links = [...text.matchAll(/\]\((?!https?:)([^)]+)\)/g)].map((match) => match[1]!);
  const anchors = [...text.matchAll(/^#+ (.+)$/gm)].map((match) => {
    const words = match[1]!.toLowerCase().replaceAll(/[^\p{L}\p{N} -]/gu, "");
    return `#${words.replaceAll(" ", "-")}`;
  });

  test("links refer to existing files and headings", () => {
    const broken = links.filter((link) =>
      link.startsWith("#") ? !anchors.includes(link) : !existsSync(join(ROOT, dirname(file), link)),
    );
    expect(broken).toEqual([]);
  });
});

/** Files named in code in src/README.md exist. */
test.each(
  [
    ...readFileSync(join(ROOT, "src/README.md"), "utf8").matchAll(/`((?:src|test|scripts|jobs)\/[\w./-]+)`/g),
  ].map((match) => match[1]!),
)("src/README.md: %s exists", (path) => {
  expect(existsSync(join(ROOT, path))).toBe(true);
});
