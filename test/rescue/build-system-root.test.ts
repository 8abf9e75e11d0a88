import { expect, test } from "bun:test";
import { chmodSync, symlinkSync } from "node:fs";
import { withFile } from "../../src/lib/read-file.ts";
import { readNeeds } from "../../src/rescue/build/elf.ts";
import { expandOrigin, SystemRoot } from "../../src/rescue/build/system-root.ts";
import { parseApplets } from "../../src/rescue/build/userland.ts";
import { Temp } from "../fixtures/temp.ts";

/** A system with symlinks of all kinds. */
function system(temp: Temp): SystemRoot {
  chmodSync(temp.write("sys/usr/bin/mawk", "#!/bin/sh\n"), 0o755);
  temp.directory("sys/etc/alternatives");
  for (const [path, target] of [
    ["bin", "usr/bin"],
    ["etc/alternatives/awk", "/usr/bin/mawk"],
    ["usr/bin/awk", "/etc/alternatives/awk"],
    ["usr/bin/up", "../../../../../usr/bin/mawk"],
    ["usr/bin/round", "round"],
    ["usr/bin/gone", "/usr/bin/nothing"],
    ["usr/bin/host", "/etc/passwd"],
  ] as const)
    symlinkSync(target, temp.path("sys", path));
  return new SystemRoot(temp.path("sys"));
}

test.each([
  ["/usr/bin/mawk", "/usr/bin/mawk"],
  ["/bin/mawk", "/usr/bin/mawk"],
  ["/usr/bin/awk", "/usr/bin/mawk"],
  ["/usr/bin/../bin/awk", "/usr/bin/mawk"],
  ["/usr/bin/up", "/usr/bin/mawk"],
  ["/", "/"],
  ["/usr/bin/round", undefined],
  ["/usr/bin/gone", undefined],
  // This file exists on the host, but not in the system.
  ["/usr/bin/host", undefined],
])("resolves symlinks within the system: %s is %s", (path, real) => {
  using temp = new Temp();
  expect(system(temp).resolve(path)).toBe(real as string);
});

test("finds programs by name, through any symlinks", () => {
  using temp = new Temp();
  const other = system(temp);
  expect(other.find("awk")).toBe("/usr/bin/awk");
  expect(other.find("host")).toBeUndefined();
  expect(other.find("sh")).toBeUndefined();
  expect(new SystemRoot("/").find("sh")).toEndWith("/sh");
});

test("lists the libraries of a program of this host", () => {
  const bash = new SystemRoot("/").resolve(new SystemRoot("/").find("bash")!)!;
  expect(withFile(bash, readNeeds).names.join(" ")).toMatch(/\blibc\b/);
  expect(withFile("/etc/passwd", readNeeds)).toEqual({ names: [], directories: [] });
});

test.each([
  ["$ORIGIN/../lib", "/usr/bin/x", "/usr/bin/../lib"],
  ["${ORIGIN}", "/usr/bin/x", "/usr/bin"],
  ["/opt/lib", "/usr/bin/x", "/opt/lib"],
  ["$ORIGINAL", "/usr/bin/x", "$ORIGINAL"],
])("%s of %s is %s", (directory, file, expanded) => {
  expect(expandOrigin(directory, file)).toBe(expanded);
});

test("reads a busybox's applets without running it", () => {
  const words = ["[", "[[", "cat", "sh", "zcat"];
  expect(parseApplets(Buffer.from(`\x7fELFx[\0[[\0no\0\0..${words.join("\0")}\0\0/bin`))).toEqual(words);
  expect(parseApplets(Buffer.from("nothing"))).toEqual([]);
});
