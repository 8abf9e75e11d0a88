import { expect, test } from "bun:test";
import { progName } from "../../src/cli/surroundings.ts";

test.each([
  ["vm", "vm"],
  ["/usr/local/bin/vm", "vm"],
  ["./my-vm2.0", "my-vm2.0"],
  ["bun", "vm"],
  ["/tmp/w/bun", "vm"],
  ["", "vm"],
  ["..", "vm"],
  [".hidden", "vm"],
  ["-vm", "vm"],
  ["/usr/bin/a b", "vm"],
  ["вм", "vm"],
  ["a".repeat(65), "vm"],
])("started as %j the program is %j", (argv0, prog) => {
  expect(progName(argv0)).toBe(prog);
});
