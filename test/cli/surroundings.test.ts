import { expect, test } from "bun:test";
import { profilesBeside, progName } from "../../src/cli/surroundings.ts";
import { Temp } from "../fixtures/temp.ts";

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
])("started as %j the program's name is %j", (argv0, prog) => {
  expect(progName(argv0)).toBe(prog);
});

test("a program at ~/vm uses another directory for profiles", () => {
  using temp = new Temp();
  temp.write("vm", "");
  temp.directory("directory");
  expect(profilesBeside("vm", temp.top, undefined)).toBe(temp.path(".local/share/vm"));
  expect(profilesBeside("vm", temp.top, temp.path("data"))).toBe(temp.path("data/vm"));
  expect(profilesBeside("vm", temp.top, "relative")).toBe(temp.path(".local/share/vm"));
  expect(profilesBeside("directory", temp.top, undefined)).toBeUndefined();
  expect(profilesBeside("nothing", temp.top, undefined)).toBeUndefined();
});
